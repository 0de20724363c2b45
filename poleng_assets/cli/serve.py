"""``poleng serve``: serve the champion over HTTP, with or without a daemon."""

import logging
import os
from pathlib import Path

import click

from poleng_assets.cli.console import console, home_option, open_home
from poleng_assets.cli.listening import address_of, allow_host_option, is_loopback, listen
from poleng_assets.storage.home_study import study_of

TOKEN = "POLENG_SERVE_TOKEN"  # noqa: S105 - the name of a variable
SHORTEST_TOKEN = 16


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option("--port", default=8000, show_default=True, help="0: any free port.")
@click.option(
    "--max-rows",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="Most respondents in one request; submit more as a batch.",
)
@allow_host_option
@home_option
def serve(
    host: str, port: int, max_rows: int, allow_hosts: tuple[str, ...], home_folder: Path | None
) -> None:
    """Serve the champion's scores over HTTP: /predict, /model, /health, /metrics.

    Clients send the token in POLENG_SERVE_TOKEN (Authorization: Bearer ...). Without a token, the server
    binds to this machine only. A new champion is loaded automatically.
    """
    token = _token()
    if not token and not is_loopback(host):
        raise click.ClickException(
            f"{host} can be reached from other machines: set {TOKEN} to a long random text, which every "
            "request must send (and put TLS in front of the port), or bind to 127.0.0.1"
        )
    # Libraries read this when they load: each request uses one thread, and one request runs per core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    home = open_home(home_folder)
    study = study_of(home)
    listening = listen(host, port)

    from poleng_assets.serving.app import build_app
    from poleng_assets.serving.champion_watcher import Watch
    from poleng_assets.serving.guard import Guard, Rules, allowed_hosts
    from poleng_assets.serving.server import build_server

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("poleng.serve").setLevel(logging.INFO)
    watch = Watch(home, study)
    app = build_app(study, lambda: watch.seen, max_rows=max_rows, token=token)
    # Without a token, any web page open in a browser of this machine could send requests.
    names = allowed_hosts(listening.getsockname()[1], host, allow_hosts)
    guarded = app if token else Guard(app, Rules(names, pages=(), any_form=True, name="The server"))
    server = build_server(guarded, app.state.metrics.refuse_connection)
    console.print(f"Home {home.root}\nServing on {address_of(listening)}. Stop it with Ctrl-C.")
    watch.start()
    try:
        server.run([listening])
    except KeyboardInterrupt:
        pass  # raised again by uvicorn after its shutdown
    finally:
        watch.stop()
        listening.close()
    console.print("Stopped.")


def _token() -> str:
    """Return the token that requests must send, empty if there is none."""
    token = os.environ.get(TOKEN, "")
    if token and (
        len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token
    ):
        raise click.ClickException(
            f"{TOKEN} is not a valid token: it needs {SHORTEST_TOKEN} or more ASCII characters without "
            "spaces, for example from `openssl rand -hex 32`"
        )
    return token

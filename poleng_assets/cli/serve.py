"""``poleng serve``: the champion behind HTTP, beside a daemon or without one."""

from __future__ import annotations

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
@click.option("--port", default=8000, show_default=True, help="0: any that is free.")
@click.option(
    "--max-rows",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="Respondents that one request may hold; more are a batch.",
)
@allow_host_option
@home_option
def serve(
    host: str, port: int, max_rows: int, allow_hosts: tuple[str, ...], home_folder: Path | None
) -> None:
    """Answer over HTTP with the champion's scores: /predict, /model, /health, /metrics.

    Whoever may ask shows the token of POLENG_SERVE_TOKEN (Authorization: Bearer ...). Without one, only this
    machine can be served. A new champion is taken over by itself.
    """
    token = _token()
    if not token and not is_loopback(host):
        raise click.ClickException(
            f"{host} can be reached by other machines: set {TOKEN} to a long random text, which every "
            "request has to show (and put TLS before the port), or bind to 127.0.0.1"
        )
    # Read when libraries load: each request keeps to one thread, and as many run as there are cores.
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
    # Without a token, a browser of this machine may ask, and any web page that it shows asks by it.
    names = allowed_hosts(listening.getsockname()[1], host, allow_hosts)
    guarded = app if token else Guard(app, Rules(names, pages=(), any_form=True, name="The server"))
    server = build_server(guarded, app.state.metrics.refuse_connection)
    console.print(f"Home {home.root}\nServing on {address_of(listening)}. Ctrl-C ends it.")
    watch.start()
    try:
        server.run([listening])
    except KeyboardInterrupt:
        pass  # told once more by uvicorn when it has ended; that was asked for
    finally:
        watch.stop()
        listening.close()
    console.print("Stopped.")


def _token() -> str:
    """Return the token that requests must show, empty when there is none."""
    token = os.environ.get(TOKEN, "")
    if token and (
        len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token
    ):
        raise click.ClickException(
            f"{TOKEN} is no token: it needs {SHORTEST_TOKEN} letters or more, ASCII and without blanks, such "
            "as `openssl rand -hex 32` makes them"
        )
    return token

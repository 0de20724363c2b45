"""Bind a port, and tell who can reach it; shared by the commands that start a server."""

import ipaddress
import socket

import click

allow_host_option = click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME[:PORT]",
    help="Another host name of this server, for example behind a proxy or tunnel. Can be repeated.",
)


def listen(host: str, port: int) -> socket.socket:
    """Bind a port before anything is loaded, to report an error at once.

    Args:
        port: 0: any free port.

    Raises:
        click.ClickException: the port cannot be bound; the message says what to do.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise click.ClickException(
            f"{host}, port {port} cannot be bound: {error}. Choose another --port, or stop what uses it"
        ) from error


def address_of(listening: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to this host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may mean any address

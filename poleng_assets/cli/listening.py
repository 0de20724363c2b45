"""What the commands have in common that open a port: taking it, and who can reach it."""

from __future__ import annotations

import ipaddress
import socket

import click

allow_host_option = click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME[:PORT]",
    help="Another name that it is reached by, behind a proxy or a tunnel. May be said again.",
)


def listen(host: str, port: int) -> socket.socket:
    """Take a port now: what cannot be served is said before anything is loaded.

    Args:
        host: name or address of this machine.
        port: 0: any that is free.

    Raises:
        click.ClickException: it cannot be bound to; the message says what to do.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise click.ClickException(
            f"{host}, port {port} cannot be bound to: {error}. Choose another --port, or end what has it"
        ) from error


def address_of(listening: socket.socket) -> str:
    """Return the address that a browser is to open."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what is bound to a host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may mean any address

"""``poleng notify``: whether messages arrive, before there is one that matters."""

from __future__ import annotations

import socket

import click

from poleng_assets.cli.console import console
from poleng_assets.notifications.addresses import VARIABLE, read_addresses

WAIT_SECONDS = 10.0


@click.command()
def notify() -> None:
    """Send a test message to each address that POLENG_NOTIFY names; say which ones did not take it."""
    addresses = read_addresses()
    if not addresses:
        raise click.ClickException(
            f"{VARIABLE} names no address: set it to one or more Apprise URLs, separated by blanks."
        )
    text = f"This is a test from {socket.gethostname()}. Whoever reads it will be told what happens there."
    failed = 0
    for address in addresses:
        delivery = address.deliver("poleng: a test", text, WAIT_SECONDS)
        failed += not delivery.done
        console.print(f"{address.name} took the message." if delivery.done else f"{delivery.error}.")
    if failed:
        raise click.ClickException(f"{failed} of {len(addresses)} addresses did not take the message.")

"""``poleng notify``: test the notification addresses."""

import socket

import click

from poleng_assets.cli.console import console
from poleng_assets.notifications.addresses import VARIABLE, read_addresses

WAIT_SECONDS = 10.0


@click.command()
def notify() -> None:
    """Send a test message to each address in POLENG_NOTIFY, and show which ones failed."""
    addresses = read_addresses()
    if not addresses:
        raise click.ClickException(
            f"{VARIABLE} contains no address: set it to one or more Apprise URLs, separated by spaces."
        )
    text = (
        f"This is a test message from {socket.gethostname()}. Notifications of this server will arrive here."
    )
    failed = 0
    for address in addresses:
        delivery = address.deliver("poleng: test message", text, WAIT_SECONDS)
        failed += not delivery.done
        console.print(f"{address.name} accepted the message." if delivery.done else f"{delivery.error}.")
    if failed:
        raise click.ClickException(f"{failed} of {len(addresses)} addresses did not accept the message.")

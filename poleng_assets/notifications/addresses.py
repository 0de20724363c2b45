"""Where messages go: the addresses that ``POLENG_NOTIFY`` names, and one delivery to one of them.

An address is an Apprise URL (https://github.com/caronc/apprise/wiki) and holds passwords and tokens: it is
never written down, logged or put into an error. People are told which one it is by its place and service.
"""

import hashlib
import logging
import os
import re
import threading
from dataclasses import dataclass, field

from poleng_assets.text.markdown import escaped
from poleng_assets.text.plain_text import in_one_line, visible

VARIABLE = "POLENG_NOTIFY"
SOCKET_SECONDS = 4.0
# A logger's filter does not see what its children log: those that name paths are listed one by one.
_TALKATIVE = ("urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry", "requests")
_THREAD = "poleng delivery"
_answered = threading.local()


@dataclass(frozen=True)
class Delivery:
    """How one delivery went; ``error`` says what is wrong, without the address."""

    done: bool
    error: str = ""


@dataclass(frozen=True)
class Address:
    """One place that messages go to."""

    number: int
    url: str = field(repr=False)

    @property
    def id(self) -> str:
        """What deliveries are remembered by; too short to try guessed passwords against."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:8]

    @property
    def name(self) -> str:
        """How people are told which one it is: even the scheme may be a token in the wrong place."""
        return f"address {self.number} of {VARIABLE}"

    def deliver(self, title: str, text: str, seconds: float) -> Delivery:
        """Deliver one message, and wait so many seconds at most.

        A service that answers byte by byte outlives every time-out of a socket: it is left behind in its
        thread, and the delivery counts as failed.
        """
        result: list[Delivery] = []
        thread = threading.Thread(
            target=lambda: result.append(_deliver(self, title, text)), name=_THREAD, daemon=True
        )
        _keep_out_of_logs()
        thread.start()
        thread.join(seconds)
        return (
            result[0] if result else Delivery(False, f"{self.name} did not answer in {seconds:.0f} seconds")
        )


def read_addresses() -> list[Address]:
    """Return the addresses that the environment names, each once, in its order."""
    urls = dict.fromkeys(os.environ.get(VARIABLE, "").split())
    return [Address(number, url) for number, url in enumerate(urls, 1)]


def _deliver(address: Address, title: str, text: str) -> Delivery:
    try:
        # Slow, and not needed while there is nothing to say.
        import apprise

        asset = apprise.AppriseAsset(
            app_id="poleng",
            app_desc="poleng",
            app_url="",
            # No pictures from another server, no files anywhere.
            image_url_mask="",
            image_url_logo="",
            storage_mode=apprise.PersistentStoreMode.MEMORY,
            pgp_autogen=False,
            pem_autogen=False,
            async_mode=False,
            # Its own time limit leaves threads behind that keep a process from ending.
            service_timeout=0,
        )
        service = apprise.Apprise.instantiate(address.url, asset=asset)
        if service is None:
            return Delivery(False, f"{address.name} is no address that Apprise understands: correct it")
        service.socket_connect_timeout = min(service.socket_connect_timeout, SOCKET_SECONDS)
        service.socket_read_timeout = min(service.socket_read_timeout, SOCKET_SECONDS)
        if service.overflow_mode == apprise.OverflowMode.UPSTREAM:
            service.overflow_mode = apprise.OverflowMode.SPLIT
        box = apprise.Apprise(asset=asset)
        box.add(service)
        title, text = in_one_line(title), visible(text)
        if service.notify_format == apprise.NotifyFormat.MARKDOWN:
            # Apprise escapes text for HTML, but not for Markdown.
            title, text = escaped(title), "\n".join(map(escaped, text.split("\n")))
        result = box.notify(text, title=title, body_format=apprise.NotifyFormat.TEXT)
    except Exception as error:
        # The boundary to some hundred plugins; what they say may hold the address.
        return Delivery(False, f"{address.name} failed with {type(error).__name__}")
    if result:
        return Delivery(True)
    code = getattr(_answered, "code", "")
    why = f"answered with error {code}" if code else "could not be reached, or refused the message"
    return Delivery(False, f"{address.name} ({service.service_name}) {why}")


def _keep_out_of_logs() -> None:
    """Let no library log what a delivery does, for good: it may go on after nobody waits for it."""
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_not_of_a_delivery)
    logging.getLogger("apprise").addFilter(_only_the_code)


def _not_of_a_delivery(record: logging.LogRecord) -> bool:
    return not (record.threadName or "").startswith(_THREAD)


def _only_the_code(record: logging.LogRecord) -> bool:
    """Of what Apprise logs, keep the number that a server answered with; the rest may hold the address."""
    if code := re.search(r"error=(\d{3})\b", record.getMessage()):
        _answered.code = code[1]
    return False

"""The addresses in ``POLENG_NOTIFY``, and the delivery of a message to one of them.

An address is an Apprise URL (https://github.com/caronc/apprise/wiki) with passwords and tokens: it is never
stored, logged or put into an error. Messages name it by its number and service.
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
# A filter of a logger does not apply to its children: those that log URL paths are listed individually.
_LOGGERS = ("urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry", "requests")
_THREAD = "poleng delivery"
_answered = threading.local()


@dataclass(frozen=True)
class Delivery:
    """The result of one delivery; ``error`` does not contain the address."""

    done: bool
    error: str = ""


@dataclass(frozen=True)
class Address:
    """One address for messages."""

    number: int
    url: str = field(repr=False)

    @property
    def id(self) -> str:
        """The key of its deliveries in the outbox; too short to test guessed passwords."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:8]

    @property
    def name(self) -> str:
        """Its name in messages: even the scheme may be a misplaced token."""
        return f"address {self.number} of {VARIABLE}"

    def deliver(self, title: str, text: str, seconds: float) -> Delivery:
        """Deliver one message within a time limit in seconds.

        A service that responds byte by byte exceeds every timeout of a socket: its thread is abandoned, and
        the delivery has failed.
        """
        result: list[Delivery] = []
        thread = threading.Thread(
            target=lambda: result.append(_deliver(self, title, text)), name=_THREAD, daemon=True
        )
        _keep_out_of_logs()
        thread.start()
        thread.join(seconds)
        return (
            result[0]
            if result
            else Delivery(False, f"{self.name} did not respond within {seconds:.0f} seconds")
        )


def read_addresses() -> list[Address]:
    """Return the distinct addresses of the environment variable, in order."""
    urls = dict.fromkeys(os.environ.get(VARIABLE, "").split())
    return [Address(number, url) for number, url in enumerate(urls, 1)]


def _deliver(address: Address, title: str, text: str) -> Delivery:
    try:
        # A slow import, only needed for a delivery.
        import apprise

        asset = apprise.AppriseAsset(
            app_id="poleng",
            app_desc="poleng",
            app_url="",
            # No images from another server, no files on disk.
            image_url_mask="",
            image_url_logo="",
            storage_mode=apprise.PersistentStoreMode.MEMORY,
            pgp_autogen=False,
            pem_autogen=False,
            async_mode=False,
            # Its own timeout leaves threads that keep the process alive.
            service_timeout=0,
        )
        service = apprise.Apprise.instantiate(address.url, asset=asset)
        if service is None:
            return Delivery(False, f"{address.name} is not a valid Apprise URL: correct it")
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
        # The boundary to about a hundred plugins; their messages may contain the address.
        return Delivery(False, f"{address.name} failed with {type(error).__name__}")
    if result:
        return Delivery(True)
    code = getattr(_answered, "code", "")
    why = f"responded with error {code}" if code else "could not be reached or refused the message"
    return Delivery(False, f"{address.name} ({service.service_name}) {why}")


def _keep_out_of_logs() -> None:
    """Suppress all library logs of deliveries permanently: an abandoned one may continue."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_not_of_a_delivery)
    logging.getLogger("apprise").addFilter(_only_the_code)


def _not_of_a_delivery(record: logging.LogRecord) -> bool:
    return not (record.threadName or "").startswith(_THREAD)


def _only_the_code(record: logging.LogRecord) -> bool:
    """Keep only the HTTP status of what Apprise logs; the rest may contain the address."""
    if code := re.search(r"error=(\d{3})\b", record.getMessage()):
        _answered.code = code[1]
    return False

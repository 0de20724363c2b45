"""Addresses: what they are called, what deliveries say, and what they never say."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from poleng_assets.notifications.addresses import Address, read_addresses
from poleng_assets_tests.sinks import mail_sink, web_sink

SECRET = "xoxb-SECRET-token"


def test_addresses_are_separated_by_blanks_and_lines_and_stand_once(monkeypatch):
    monkeypatch.setenv("POLENG_NOTIFY", " json://a/x\n json://b  json://a/x\t")
    assert [(one.number, one.url) for one in read_addresses()] == [(1, "json://a/x"), (2, "json://b")]


def test_an_address_does_not_show_itself():
    address = Address(1, f"json://{SECRET}")
    assert SECRET not in repr(address) + str(address) + address.name + address.id
    assert len(address.id) == 8


@pytest.mark.parametrize(
    "url",
    [
        SECRET,
        f"nosuchservice://{SECRET}",
        f"tgram://{SECRET}",
        f"json://someone:{SECRET}@127.0.0.1:9/{SECRET}?+X-Token={SECRET}",
        f"mailto://someone:{SECRET}@127.0.0.1:9?smtp=127.0.0.1&mode=insecure&to=a@example.org",
        f"json://[{SECRET}",
    ],
)
def test_no_secret_is_told_when_a_delivery_fails(url, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    delivery = Address(3, url).deliver("Title", "Text", 5.0)
    out, err = capfd.readouterr()
    assert not delivery.done
    assert delivery.error.startswith("address 3 of POLENG_NOTIFY")
    assert SECRET not in delivery.error + out + err + caplog.text


def test_no_secret_is_logged_when_a_delivery_succeeds(caplog):
    caplog.set_level(logging.DEBUG)
    with web_sink() as sink:
        assert Address(1, sink.url(f"hook/{SECRET}", SECRET)).deliver("Title", "Text", 5.0).done
    assert sink.titles == ["Title"]
    assert SECRET not in caplog.text


def test_text_is_sent_as_it_is():
    with web_sink() as sink, mail_sink() as mails:
        for url in (sink.url(), mails.url):
            assert Address(1, url).deliver("a < b & c", "first <b>\nsecond 'é' *x*", 5.0).done
    assert sink.got[0]["message"] == "first <b>\nsecond 'é' *x*"
    assert mails.got[0][0] == "a < b & c"
    assert mails.got[0][1].split("\n")[0].strip() == "first <b>"


LEFT_BEHIND = """
import sys
from poleng_assets.notifications.addresses import Address
assert "apprise" not in sys.modules
delivery = Address(1, sys.argv[1]).deliver("Title", "Text", 1.0)
assert not delivery.done, delivery
"""


def test_a_delivery_that_never_ends_keeps_no_process_from_ending(tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(tmp_path)}
    with web_sink() as sink:
        sink.drip_seconds = 60.0
        subprocess.run(
            [sys.executable, "-c", LEFT_BEHIND, sink.url()], check=True, timeout=20, env=environment
        )
    assert list(tmp_path.rglob("*")) == []  # nor is anything written into the user's home

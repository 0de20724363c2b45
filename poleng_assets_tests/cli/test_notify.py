"""``poleng notify``, to a web server on this machine."""

from __future__ import annotations

from click.testing import CliRunner

from poleng_assets.cli.notify import notify
from poleng_assets_tests.sinks import web_sink


def test_each_address_gets_a_test_message(monkeypatch):
    with web_sink() as one, web_sink() as two:
        monkeypatch.setenv("POLENG_NOTIFY", f"{one.url()} {two.url()}")
        said = CliRunner().invoke(notify)
    assert said.exit_code == 0, said.output
    assert said.output.count("accepted the message.") == 2
    assert one.titles == two.titles == ["poleng: test message"]


def test_an_address_that_does_not_work_is_named_without_its_secret(monkeypatch):
    with web_sink() as works:
        monkeypatch.setenv("POLENG_NOTIFY", f"tgram://SECRET {works.url()}")
        said = CliRunner().invoke(notify)
    assert said.exit_code == 1
    assert "address 1 of POLENG_NOTIFY is not a valid Apprise URL" in said.output
    assert "1 of 2 addresses did not accept the message" in said.output
    assert "SECRET" not in said.output
    assert works.titles == ["poleng: test message"]


def test_no_address_is_said_in_words(monkeypatch):
    monkeypatch.delenv("POLENG_NOTIFY", raising=False)
    said = CliRunner().invoke(notify)
    assert said.exit_code == 1
    assert "POLENG_NOTIFY contains no address" in said.output

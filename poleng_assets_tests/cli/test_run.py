"""The command that runs all pending work, and its name in earlier releases."""

from click.testing import CliRunner

from poleng_assets.cli.main import main


def test_settle_is_a_hidden_alias_of_run_pending():
    listed = CliRunner().invoke(main, ["--help"]).output
    assert "run-pending" in listed
    assert "settle" not in listed
    old, new = main.commands["settle"], main.commands["run-pending"]
    assert (old.callback, old.params, old.help) == (new.callback, new.params, new.help)

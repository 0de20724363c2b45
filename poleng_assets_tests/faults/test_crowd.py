"""What is said of a crowd at the door; end_to_end/test_daemon.py and ``make test-faults`` let one come."""

from dataclasses import replace

import pytest

from poleng_assets.core.ingestion.row_accounting import Balance
from poleng_assets_tests.faults.crowd import Crowd

GOOD = Crowd(
    dropped=("a", "b"),
    taken_in=("a", "b"),
    listed=2,
    failed=(),
    slots=0,
    waited="the warehouse is locked by python (PID 1)",
    overlapped=1,
    balance=Balance(read=10, scored=10, quarantined=0, refused=0, erased=0, waiting=0),
    seconds=20.0,
)


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, listed=1),
        replace(GOOD, taken_in=("b", "a")),
        replace(GOOD, failed=("process_batch a",)),
        replace(GOOD, slots=1),
        replace(GOOD, waited=""),
        replace(GOOD, overlapped=0),
        replace(GOOD, balance=replace(GOOD.balance, scored=9)),
    ],
)
def test_each_thing_that_goes_wrong_in_a_crowd_is_told(bad: Crowd):
    assert GOOD.faults == []
    assert len(bad.faults) == 1
    assert bad.faults[0] in bad.summary()

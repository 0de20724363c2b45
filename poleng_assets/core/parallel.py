"""Several fits at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def side_by_side(make: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """Make something of each item, as many at a time as there are cores; return it in their order.

    What runs here should keep to one thread by itself. The linear algebra is held to one for the time:
    its threads would only wait for each other, and round sums in another order on another machine.
    """
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits

    # Around all of them: limits set side by side would lift each other, and the last stay for good.
    with threadpool_limits(1):
        return list(Parallel(n_jobs=-1, prefer="threads")(delayed(make)(item) for item in items))

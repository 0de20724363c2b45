"""Several fits at the same time, or several blocks of rows."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Made = TypeVar("Made")


def parallel_map(make: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """Make something of each item, as many at a time as there are cores; return it in their order.

    What runs here should keep to one thread by itself. The linear algebra is held to one for the time:
    its threads would only wait for each other, and round sums in another order on another machine.
    """
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits

    # Around all of them: limits set side by side would lift each other, and the last stay for good.
    with threadpool_limits(1):
        return list(Parallel(n_jobs=-1, prefer="threads")(delayed(make)(item) for item in items))


def map_blocks(make: Callable[[int, int], np.ndarray], rows: int, size: int) -> np.ndarray:
    """Make something of blocks of rows, as many at a time as there are cores; join it in their order.

    Args:
        make: gets the first row of a block and the one after its last, and returns an array with as many
            rows; it keeps to one thread by itself.
        size: of a block, in rows: small enough for a core's own memory, large enough to be worth a call.
    """
    from joblib import cpu_count

    blocks = [(start, min(start + size, rows)) for start in range(0, rows, size)] or [(0, 0)]
    if len(blocks) == 1:
        return make(0, rows)
    with ThreadPoolExecutor(cpu_count()) as threads:
        return np.concatenate(list(threads.map(lambda block: make(*block), blocks)))


def prefetch(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, while a thread makes the next one; what goes wrong there is raised in its turn."""
    end = object()
    source = iter(items)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, source, end)
            yield item  # type: ignore[misc]

"""Work on batches, two at a time: while one waits for photos, the other computes. Knows nothing of what the work is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = 2
"""Batches in hand: what a killed run loses."""


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def work_ahead(work: Callable[[list[Item]], Result], items: Iterable[list[Item]]) -> Iterator[Result]:
    """`work` on each batch, in order; no more than AT_ONCE batches are taken from `items` before they are asked for."""
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="rucap-batch")
    waiting: deque[Future[Result]] = deque()
    try:
        for batch in items:
            waiting.append(pool.submit(work, batch))
            if len(waiting) == AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)

"""Parallel work in several threads, with results in order and a bounded number in flight."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from pipelines.ledger.files import LedgerDamaged

T = TypeVar("T")
R = TypeVar("R")


def map_in_order(work: Callable[[T], R], items: Iterable[T], *, threads: int = 8) -> Iterator[tuple[T, R]]:
    """Yield each item with the result of `work`, in the items' order; an error of `work` is raised at its item.

    An item is taken when work on it begins, and at most `threads` of them are not yet yielded: memory is bounded.
    """
    with ThreadPoolExecutor(threads) as pool:
        begun = ((item, pool.submit(work, item)) for item in items)
        waiting = deque(islice(begun, threads))
        while waiting:
            item, future = waiting.popleft()
            yield item, future.result()
            waiting.extend(islice(begun, 1))


def map_readable(
    read: Callable[[T], R], items: Iterable[T], *, threads: int = 8
) -> Iterator[tuple[T, R | LedgerDamaged]]:
    """Like `map_in_order`, but yield a damaged item's LedgerDamaged as its result."""

    def read_if_whole(item: T) -> R | LedgerDamaged:
        try:
            return read(item)
        except LedgerDamaged as error:
            return error

    return map_in_order(read_if_whole, items, threads=threads)

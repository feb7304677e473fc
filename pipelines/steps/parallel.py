"""Parallel work in several threads, with results in order and a bounded number in flight."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pipelines.ledger.files import LedgerDamaged

T = TypeVar("T")
R = TypeVar("R")


def map_in_order(work: Callable[[T], R], items: Iterable[T], *, threads: int = 8) -> Iterator[tuple[T, R]]:
    """Yield each item with the result of `work`, in the items' order; an error of `work` is raised at its item.

    An item is taken when work on it begins, and at most `threads` of them are not yet yielded: memory is bounded.
    """
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= threads:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def map_readable(
    read: Callable[[T], R], items: Iterable[T], *, threads: int = 8
) -> Iterator[tuple[T, R | LedgerDamaged]]:
    """Yield the same as `map_in_order`, but LedgerDamaged as the result of an item that is damaged."""

    def read_if_whole(item: T) -> R | LedgerDamaged:
        try:
            return read(item)
        except LedgerDamaged as error:
            return error

    return map_in_order(read_if_whole, items, threads=threads)

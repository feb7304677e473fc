"""Parts of a long listing asked for in parallel.

A store gives a thousand keys a page, each page after the one before: at 80 ms a page the hundred thousand recordings of
a date take eight seconds, and one in parallel.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Final

_AT_ONCE: Final = 16
_LEAST: Final = 2000


@dataclass(frozen=True, slots=True)
class Listed:
    """One object in a listing. `etag` is without quotes."""

    size: int
    etag: str


ListKeys = Callable[[str, str], Iterator[tuple[str, Listed]]]
"""Lists what begins with the first and comes after the second, in the store's order."""


def list_in_parallel(
    list_keys: ListKeys, start: str, expected: Iterable[str], *, least: int = _LEAST
) -> dict[str, Listed]:
    """Return every object whose key begins with `start`.

    Args:
        list_keys: asks the store.
        start: of the keys.
        expected: keys that are likely to be found; the listing is divided between them.
        least: of them in each part.
    """
    inside = sorted(key for key in expected if key.startswith(start))
    apart = max(least, -(-len(inside) // _AT_ONCE))
    if cuts := inside[apart::apart]:

        def part(ends: tuple[str, str | None]) -> list[tuple[str, Listed]]:
            after, last = ends
            return list(takewhile(lambda item: last is None or item[0] <= last, list_keys(start, after)))

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="listing") as pool:
            found = {key: listed for items in pool.map(part, pairwise(["", *cuts, None])) for key, listed in items}
        # Some stores list in no order, or not from a key on. Then the listing is made in one piece.
        if found.keys() >= set(inside):
            return found
    return dict(list_keys(start, ""))

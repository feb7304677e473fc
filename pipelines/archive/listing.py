"""Many objects listed in little time: read in C, and parts of a listing side by side.

A listing gives a thousand keys after the other, each page when the one before is there: at 80 ms a page the hundred
thousand recordings of a date take eight seconds, and side by side one. To read them takes botocore three more.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final
from xml.etree import ElementTree as ET

__all__ = ["PAGE_EVENT", "Listed", "list_side_by_side", "read_page"]

_AT_ONCE: Final = 16
_LEAST: Final = 2000


@dataclass(frozen=True, slots=True)
class Listed:
    """One object in a listing. `etag` is without quotes."""

    size: int
    etag: str


PAGE_EVENT: Final = "before-parse.*.ListObjectsV2"
"""botocore calls the handlers of a wildcard before others: its own read the whole page once more, to see whether it is
an error, which took as long as reading it here.
"""

ListKeys = Callable[[str, str], Iterator[tuple[str, Listed]]]
"""What begins with the first and comes behind the second, in the store's order."""


def list_side_by_side(
    list_keys: ListKeys, start: str, expected: Iterable[str], *, least: int = _LEAST
) -> dict[str, Listed]:
    """Every object whose key begins with `start`.

    Args:
        list_keys: asks the store.
        start: of the keys.
        expected: keys that are likely to be found; they tell where the listing may be divided.
        least: of them in each part.
    """
    inside = sorted(key for key in expected if key.startswith(start))
    apart = max(least, -(-len(inside) // _AT_ONCE))
    if cuts := inside[apart::apart]:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="listing") as pool:
            parts = pool.map(lambda ends: _between(list_keys, start, *ends), pairwise(["", *cuts, None]))
            found = {key: listed for part in parts for key, listed in part}
        # Some stores list in no order, or not from a key on. What is missing is looked for in one piece, too.
        if found.keys() >= set(inside):
            return found
    return dict(list_keys(start, ""))


def read_page(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Read the objects of a page, and leave the rest of it to botocore: `Key`, `Size` and `ETag`, at a sixth of its
    CPU. For the client's event `PAGE_EVENT`.
    """
    if response_dict["status_code"] != 200:
        return
    try:
        page = ET.fromstring(response_dict["body"])  # noqa: S314 - as botocore reads it
        space, its_name, _rest = page.tag.partition("ListBucketResult")
        if not its_name:
            return
        tag, key, size, etag = (f"{space}{name}" for name in ("Contents", "Key", "Size", "ETag"))
        contents = [
            {"Key": one.findtext(key, ""), "Size": int(one.findtext(size, "")), "ETag": one.findtext(etag, "")}
            for one in page.iterfind(tag)
        ]
    except (ET.ParseError, ValueError):
        return  # botocore says what is wrong with it
    customized_response_dict["Contents"] = contents
    page[:] = [one for one in page if one.tag != tag]
    response_dict["body"] = ET.tostring(page)


def _between(list_keys: ListKeys, start: str, after: str, last: str | None) -> list[tuple[str, Listed]]:
    found = []
    for key, listed in list_keys(start, after):
        if last is not None and key > last:
            break
        found.append((key, listed))
    return found

"""Read merged parts, which version 0.1.0 made of the small parts of old dates. Nothing is merged any more.

A merged part holds all lines of the parts it replaces, one part after the other. Its Parquet metadata lists them: name,
SHA-256 and number of lines of each. The replaced parts may still be there, and are then not read. A merged part that
was merged again passes its list on.

Its name is `<ulid>-<number of parts>-<16 hex>.parquet`, with the ULID of the last part it replaces, so that it keeps
that part's position in the order of writing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

RECORD_KEY = b"ringcx-archive/merged/1"
"""The name of the list in the file's metadata, where it is JSON."""

_NAME = re.compile(r"[0-9A-Z]{26}-([1-9][0-9]*)-[0-9a-f]{16}\.parquet")

Slices: TypeAlias = "list[tuple[int, int]] | None"
"""The lines of a part to use, as (start, length); None means all."""


class Replaced(NamedTuple):
    """A part as it was when it was merged: its name in the ledger, SHA-256 in hex, number of lines."""

    name: str
    sha256: str
    lines: int


class Record(NamedTuple):
    """What a merged part replaces. `parts`: those that a run wrote, in the order of their lines here; `between`: merged
    parts that were merged again.
    """

    parts: list[Replaced]
    between: list[Replaced]


def record_of(data: bytes) -> Record:
    """Return what a merged part replaces, from its bytes.

    Raises:
        ValueError, pa.ArrowException, OSError: the list is missing, or does not fit the lines.
    """
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        metadata, lines = file.metadata.metadata or {}, file.metadata.num_rows
    try:
        stored = json.loads(metadata.get(RECORD_KEY, b"null"))
        record = Record(
            *(
                [Replaced(str(it["name"]), str(it["sha256"]), int(it["lines"])) for it in stored[name]]
                for name in Record._fields
            )
        )
    except (KeyError, TypeError) as error:
        raise ValueError("its list of the parts it replaces is missing or damaged") from error
    counts = [part.lines for part in record.parts]
    if not counts or min(counts) < 0 or sum(counts) != lines:
        raise ValueError("it has not as many lines as the parts it says to replace")
    return record


def parts_replaced(name: str) -> int:
    """Return how many parts a merged part replaces, by its name; 0 for any other part."""
    found = _NAME.fullmatch(name.rpartition("/")[2])
    return int(found[1]) if found else 0


def parts_to_read(names: Iterable[str], record_of: Callable[[str], Record]) -> list[tuple[str, Slices]]:
    """Return which of a folder's parts to read, in the order of `names`, so that every line comes once.

    The merged part that replaces most comes first. Two of them may overlap, made by two runs that had listed at
    different moments: of the second only what the first lacks is read.
    """
    names = list(names)
    covered: set[str] = set()
    wanted: dict[str, Slices] = {}
    for name in sorted(filter(parts_replaced, names), key=lambda name: (-parts_replaced(name), name)):
        if name in covered:
            continue
        record = record_of(name)
        starts = accumulate((part.lines for part in record.parts), initial=0)
        pairs = zip(starts, record.parts, strict=False)
        if slices := [(start, part.lines) for start, part in pairs if part.name not in covered]:
            wanted[name] = slices
        covered.update(part.name for part in (*record.parts, *record.between))
    wanted |= {name: None for name in names if not parts_replaced(name) and name not in covered}
    return [(name, wanted[name]) for name in names if name in wanted]

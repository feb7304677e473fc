"""How an event lies in a file: a line of `<CRC-32 in 8 hex digits> <JSON in ASCII>`.

The checksum tells a line that arrived from one that a crash tore or a disk spoiled; the line break, which JSON in ASCII
never holds, tells where a line that is still being written begins. Writers only ever append whole lines.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Frames:
    """What a piece of a file holds.

    `records`: the sound lines. `damaged`: whole lines that are not what was written. `settled`: bytes from the piece's
    start that need not be read again, which end before the first damaged line and before a line without its end.
    """

    records: Sequence[Mapping[str, Any]]
    damaged: int
    settled: int


def frame(record: Mapping[str, Any]) -> bytes:
    """One line."""
    text = json.dumps(record, separators=(",", ":")).encode("ascii")
    return b"%08x %b\n" % (zlib.crc32(text), text)


def read_frames(data: bytes) -> Frames:
    """Read lines from a place where one begins."""
    records: list[Mapping[str, Any]] = []
    damaged = settled = 0
    lines = data.split(b"\n")
    for line in lines[:-1]:
        record = _record(line)
        if record is None:
            damaged += 1
        else:
            records.append(record)
        if not damaged:
            settled += len(line) + 1
    return Frames(records, damaged, settled)


def _record(line: bytes) -> Mapping[str, Any] | None:
    text = line[9:]
    if line[:9] != b"%08x " % zlib.crc32(text):
        return None
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None

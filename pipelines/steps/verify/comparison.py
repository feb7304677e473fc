"""One date's manifest, ledger and listing next to each other in memory: about a kilobyte for each recording."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa

from pipelines.archive.listing import Listed
from pipelines.archive.proof.manifest import canonical_json, entry_document
from pipelines.ledger.schema import values
from pipelines.ledger.states import Status
from pipelines.steps.seal.manifest import entries_of

COMPARED = ("status", "reason", "key", "size", "sha256", "version_id", "layout", "source", "duration_s")


class Line(NamedTuple):
    """A recording as a manifest or the ledger has it. `digest` is of the whole entry; `etag` and `written_at` are the
    ledger's.
    """

    recording_id: str
    status: str
    reason: str | None
    key: str
    size: int | None
    sha256: str
    version_id: str | None
    layout: str
    source: str
    duration_s: float | None
    digest: bytes
    etag: str | None = None
    written_at: datetime | None = None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Line:
        """Read an entry of a manifest."""
        fields: list[Any] = [_encodable(entry.get(name)) for name in ("recording_id", *COMPARED)]
        return cls._make([*fields, hashlib.sha256(canonical_json(entry)).digest(), None, None])


@dataclass(slots=True)
class Comparison:
    """What is known of a date's recordings, by recording id: `sealed` and by the `ledger`; the `objects` that are
    listed, by key. `renamed`: since when an id is another name of a recording, and counts no more.
    """

    sealed: dict[str, Line]
    is_sealed: bool
    ledger: dict[str, Line] = field(default_factory=dict)
    renamed: dict[str, datetime] = field(default_factory=dict)
    objects: dict[str, Listed] = field(default_factory=dict)

    def add_ledger(self, lines: pa.Table) -> None:
        """Take the ledger's current states of the date (STATE_SCHEMA)."""
        lines = lines.sort_by("recording_id")
        named = lines.filter(lines["same_as"].is_valid())
        self.renamed = dict(zip(values(named["recording_id"]), values(named["written_at"]), strict=True))
        lines = lines.filter(lines["same_as"].is_null())
        rest = zip(entries_of(lines), values(lines["etag"]), values(lines["written_at"]), strict=True)
        for entry, etag, written_at in rest:
            line, sealed = Line.of(entry_document(entry)), self.sealed.get(entry.recording_id)
            # The very texts of the manifest where both say the same: they take most of the memory.
            same = sealed if sealed is not None and sealed.digest == line.digest else line
            self.ledger[line.recording_id] = same._replace(etag=etag, written_at=written_at)

    @property
    def expected(self) -> Mapping[str, Line]:
        """What should be in the bucket: by the manifest, or by the ledger where there is no good manifest."""
        return self.sealed if self.is_sealed else self.ledger

    def held(self) -> list[Line]:
        """The recordings that should be held, by id."""
        return sorted(line for line in self.expected.values() if line.status == Status.archived)

    def totals(self) -> dict[str, int]:
        """What the expected recordings add up to, under the names of a manifest's totals."""
        lines = self.expected.values()
        counts = dict.fromkeys(map(str, Status), 0) | Counter(str(line.status) for line in lines)
        return {"found": len(lines), "bytes": size_of(lines), **counts}

    def differences(self) -> Iterator[tuple[str, Line | None, Line | None]]:
        """Recordings of which manifest and ledger do not say the same, and what each of them says."""
        for recording_id in sorted(self.sealed.keys() | self.ledger.keys()):
            sealed, held = self.sealed.get(recording_id), self.ledger.get(recording_id)
            if sealed is None or held is None or sealed.digest != held.digest:
                yield recording_id, sealed, held


def size_of(lines: Iterable[Line]) -> int:
    """Return the bytes of all of them together; one that is not held has none."""
    return sum(line.size or 0 for line in lines)


def _encodable(value: object) -> object:
    """Write a lone surrogate as its escape, so that the text can be printed."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value

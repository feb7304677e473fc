"""One date's manifest, ledger and listing side by side in a temporary SQLite file, which is where they are compared.

Memory stays the same for a date of twenty recordings and one of a million: the file grows instead.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pipelines.archive.bucket import Listed
from pipelines.archive.manifest import canonical_json, entry_document
from pipelines.ledger.states import PRECEDENCE, RANKS, RecordingState, Status
from pipelines.steps.seal import entry_of

_BATCH = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COMPARED = ("status", "reason", "key", "size", "sha256", "version_id", "layout", "source", "duration_s")
_COLUMNS = ("recording_id", *_COMPARED, "digest")
_ORDER = tuple(f"by_{name}" for name in PRECEDENCE)
_LEDGER = (*_COLUMNS, "etag", *_ORDER, "same_as")
_SCHEMA = f"""
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
PRAGMA cache_size = -8192;
CREATE TABLE sealed ({", ".join(_COLUMNS)}, PRIMARY KEY (recording_id)) WITHOUT ROWID;
CREATE TABLE ledger ({", ".join(_LEDGER)}, PRIMARY KEY (recording_id)) WITHOUT ROWID;
CREATE TABLE names (recording_id, written_at, PRIMARY KEY (recording_id)) WITHOUT ROWID;
CREATE TABLE objects (key, size, etag, PRIMARY KEY (key)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Expected:
    """A recording that should lie in the bucket; `etag` is the ledger's, `listed_*` the listing's (None: not there)."""

    recording_id: str
    key: str
    size: int
    sha256: str
    version_id: str | None
    etag: str | None
    listed_size: int | None
    listed_etag: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A recording of which manifest and ledger do not say the same. `fields`: in what, empty where one lacks it."""

    recording_id: str
    kind: Literal["only_sealed", "only_ledger", "differs"]
    sealed_status: str | None
    ledger_status: str | None
    fields: tuple[str, ...]
    written_at: datetime | None


class Scratch:
    """Filled for one date, asked, thrown away."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="verify-")
        self._db = sqlite3.connect(Path(self._folder.name, "day.sqlite"), isolation_level=None)
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")
        self._waiting: list[tuple[Any, ...]] = []

    def close(self) -> None:
        """Throw it away."""
        self._db.close()
        self._folder.cleanup()

    def add_entry(self, entry: Mapping[str, Any]) -> None:
        """Take one entry of the manifest that counts; `flush` after the last."""
        values = [entry.get(name) for name in ("recording_id", *_COMPARED)]
        self._waiting.append((*map(_plain, values), _digest(entry)))
        if len(self._waiting) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write the entries that wait."""
        marks = ", ".join("?" * len(_COLUMNS))
        self._db.executemany(f"INSERT OR REPLACE INTO sealed VALUES ({marks})", self._waiting)  # noqa: S608 - constants
        self._waiting.clear()

    def forget_entries(self) -> None:
        """Drop all entries: their manifest turned out to be damaged."""
        self._waiting.clear()
        self._db.execute("DELETE FROM sealed")

    def add_states(self, states: Sequence[RecordingState]) -> None:
        """Take lines of the ledger, in any order: the one that counts by `states.PRECEDENCE` stays."""
        newer = ", ".join(f"excluded.{name}" for name in _ORDER)
        older = ", ".join(f"ledger.{name}" for name in _ORDER)
        update = ", ".join(f"{name} = excluded.{name}" for name in _LEDGER[1:])
        marks = ", ".join("?" * len(_LEDGER))
        self._db.executemany(
            f"INSERT INTO ledger VALUES ({marks}) ON CONFLICT (recording_id) DO UPDATE SET {update} "  # noqa: S608
            f"WHERE ({newer}) > ({older})",
            [_ledger_line(state) for state in states],
        )

    def add_objects(self, listing: Iterable[tuple[str, Listed]]) -> int:
        """Take the listing of the date; returns how many objects it has."""
        before = self._count("SELECT count(*) FROM objects")
        self._db.executemany(
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", ((key, one.size, one.etag) for key, one in listing)
        )
        return self._count("SELECT count(*) FROM objects") - before

    def is_listed(self, key: str) -> bool:
        """Whether the listing of the date has this object."""
        return bool(self._db.execute("SELECT 1 FROM objects WHERE key = ?", (key,)).fetchone())

    def expect(self, source: Literal["sealed", "ledger"]) -> None:
        """Say which of the two tells what should be in the bucket, once both and the listing are there.

        From here on an id that is another name of a recording counts no more.
        """
        self._db.execute("INSERT INTO names SELECT recording_id, by_written_at FROM ledger WHERE same_as IS NOT NULL")
        self._db.execute("DELETE FROM ledger WHERE same_as IS NOT NULL")
        self._db.execute(f"CREATE TEMP VIEW expected AS SELECT * FROM {source}")  # noqa: S608 - one of two names
        self._db.execute(f"CREATE INDEX by_key ON {source} (key)")
        self._db.execute(f"CREATE INDEX by_sha256 ON {source} (sha256)")

    def totals(self) -> dict[str, int]:
        """What the expected recordings add up to, under the names of a manifest's totals."""
        rows = self._db.execute("SELECT status, count(*), coalesce(sum(size), 0) FROM expected GROUP BY status")
        counts = {str(status): 0 for status in Status}
        size = 0
        for status, number, of_status in rows:
            counts[status] = number
            size += of_status
        return {"found": sum(counts.values()), "bytes": size, **counts}

    def held_bytes(self) -> int:
        """Bytes of the recordings that should be held."""
        return self._count("SELECT coalesce(sum(size), 0) FROM expected WHERE status = 'archived'")

    def differences(self) -> Iterator[Difference]:
        """Where manifest and ledger disagree, by recording id."""
        named = ", ".join(f"s.{name} IS l.{name}" for name in _COMPARED)
        with closing(self._db.cursor()) as cursor:
            cursor.execute(
                f"SELECT s.recording_id, s.status, l.status, l.by_written_at, {named} FROM sealed s "  # noqa: S608
                "JOIN ledger l USING (recording_id) WHERE s.digest != l.digest ORDER BY 1"
            )
            for recording_id, sealed, held, written, *same in cursor:
                fields = tuple(name for name, equal in zip(_COMPARED, same, strict=True) if not equal)
                yield Difference(recording_id, "differs", sealed, held, fields or ("other fields",), _time(written))
            cursor.execute(
                "SELECT recording_id, status, names.written_at FROM sealed LEFT JOIN names USING (recording_id) "
                "WHERE recording_id NOT IN (SELECT recording_id FROM ledger)"
            )
            for recording_id, status, named in cursor:
                since = None if named is None else _time(named)
                yield Difference(recording_id, "only_sealed", status, None, (), since)
            cursor.execute(
                "SELECT recording_id, status, by_written_at FROM ledger "
                "WHERE recording_id NOT IN (SELECT recording_id FROM sealed)"
            )
            for recording_id, status, written in cursor:
                yield Difference(recording_id, "only_ledger", None, status, (), _time(written))

    def shared_keys(self) -> Iterator[tuple[str, int]]:
        """Keys that more than one recording is said to lie under, and how many."""
        yield from self._db.execute(
            "SELECT key, count(*) FROM expected WHERE status = 'archived' GROUP BY key HAVING count(*) > 1 ORDER BY 1"
        )

    def strays(self) -> Iterator[tuple[str, int, str | None]]:
        """Objects that nobody expects: key, size, and the recording id that the ledger has under that key."""
        yield from self._db.execute(
            "SELECT o.key, o.size, (SELECT min(l.recording_id) FROM ledger l WHERE l.key = o.key) FROM objects o "
            "WHERE NOT EXISTS (SELECT 1 FROM expected e WHERE e.key = o.key AND e.status = 'archived') ORDER BY 1"
        )

    def to_read(self, draw: Callable[[str], float], below: float, limit: int) -> int:
        """Choose at random whose bytes are read: those whose `draw` (of their id, from 0 to 1) is below, at most
        `limit`.

        Returns: how many.
        """
        self._db.create_function("draw", 1, draw, deterministic=True)
        self._db.execute("CREATE TEMP TABLE chosen (recording_id PRIMARY KEY) WITHOUT ROWID")
        self._db.execute(
            "INSERT INTO chosen SELECT recording_id FROM (SELECT recording_id, draw(recording_id) AS lot FROM expected "
            "WHERE status = 'archived' AND lot < ? ORDER BY lot LIMIT ?)",
            (below, limit),
        )
        return self._count("SELECT count(*) FROM chosen")

    def expected(self) -> Iterator[tuple[Expected, bool]]:
        """Every recording that should be held, and whether it was chosen to be read; after `to_read`."""
        cursor = self._db.execute(
            "SELECT e.recording_id, e.key, e.size, e.sha256, e.version_id, l.etag, o.size, o.etag, "
            "c.recording_id IS NOT NULL FROM expected e "
            "LEFT JOIN (SELECT recording_id AS id, etag, sha256 AS hash FROM ledger) l "
            "ON l.id = e.recording_id AND l.hash = e.sha256 "
            "LEFT JOIN objects o ON o.key = e.key LEFT JOIN chosen c ON c.recording_id = e.recording_id "
            "WHERE e.status = 'archived' ORDER BY e.recording_id"
        )
        for *values, chosen in cursor:
            yield Expected(*values), bool(chosen)

    def holder(self, sha256: str) -> str | None:
        """The id of an expected recording with these bytes."""
        row = self._db.execute("SELECT recording_id FROM expected WHERE sha256 = ? LIMIT 1", (sha256,)).fetchone()
        return None if row is None else str(row[0])

    def _count(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])


def _ledger_line(state: RecordingState) -> tuple[Any, ...]:
    entry = entry_document(entry_of(state))
    return (
        state.recording_id,
        *(_plain(entry[name]) for name in _COMPARED),
        _digest(entry),
        state.etag,
        *(_sortable(RANKS[state.status] if name == "rank" else getattr(state, name)) for name in PRECEDENCE),
        state.same_as,
    )


def _digest(entry: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(canonical_json(entry)).digest()


def _plain(value: object) -> object:
    """A forged manifest may hold anything; what SQLite cannot hold is compared by its text."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    return repr(value)


def _sortable(value: datetime | str | int | None) -> str | int:
    return _microseconds(value) if isinstance(value, datetime) else "" if value is None else value


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)

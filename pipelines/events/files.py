"""The files of End Call Events, in a local folder or a bucket (docs/events.md): how lines are framed, kept and read.

Each batch of a day's events is a new file, which appears whole and never changes, so any number of receivers may share
a folder or bucket. A line's checksum shows whether a disk damaged it. Receivers of 0.1.0 appended to files in a folder,
so one of theirs may end in a part of a line, which was never acknowledged.
"""

import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from ulid import ULID

from pipelines.aws import S3Client, split_s3_url
from pipelines.errors import ExpectedError
from pipelines.ledger.files import Files, LocalFiles, S3Files, date_of_folder

Line = tuple[str, bytes]
"""A folder, ending in a slash, and one framed line."""

_SUFFIX = ".events"


class EventsUnavailable(ExpectedError):  # noqa: N818 - named after its cause, like LedgerUnavailable
    """The events cannot be written or read now. One sentence: what, where, what to do."""


def frame(record: Mapping[str, Any]) -> bytes:
    """Return the line for a record."""
    text = json.dumps(record, separators=(",", ":")).encode("ascii")
    return b"%08x %b\n" % (zlib.crc32(text), text)


def read_frames(data: bytes) -> tuple[list[Mapping[str, Any]], int]:
    """Return the records of the intact lines of a file, and the number of whole lines that were altered."""
    records = [_record(line) for line in data.split(b"\n")[:-1]]
    intact = [record for record in records if record is not None]
    return intact, len(records) - len(intact)


def day_folder(day: date) -> str:
    """Return the folder of the events whose calls began on the local `day`."""
    return f"date={day.isoformat()}/"


def malformed_folder(day: date) -> str:
    """Return the folder of the UTC `day` for requests that were not events."""
    return f"malformed/date={day.isoformat()}/"


class Events:
    """The stored events. Every method raises EventsUnavailable if the folder or bucket does not answer.

    A bucket needs s3:ListBucket, and s3:PutObject to write or s3:GetObject to read.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

    def days(self) -> list[date]:
        """Return the dates that have events, sorted, with one request per 1000."""
        return sorted(day for name in self._files.folders("") if (day := date_of_folder(name)))

    def files(self, folder: str) -> dict[str, int]:
        """Return the names of a folder's files, sorted, with their bytes: one request per 1000."""
        return {name: size for name, size in self._files.sizes(folder).items() if name.endswith(_SUFFIX)}

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        with _errors("read", self._files):
            return self._files.read(name)

    def write(self, lines: Iterable[Line]) -> None:
        """Write a durable file for each folder. If this raises, none of the lines may be acknowledged."""
        folders: defaultdict[str, list[bytes]] = defaultdict(list)
        for folder, line in lines:
            folders[folder].append(line)
        for folder, parts in folders.items():
            with _errors("write", self._files):
                self._files.create(f"{folder}{ULID()}{_SUFFIX}", b"".join(parts))

    def probe(self, *, write: bool) -> None:
        """Prove that events can be stored. A bucket keeps the proof, so without `write` only its dates are listed."""
        name = f"probes/{ULID()}"
        with _errors("write", self._files):
            if isinstance(self._files, LocalFiles):
                self._files.create(name, b"probe\n")
                (self._files.root / name).unlink()
            elif write:
                self._files.create(name, b"probe\n")
            else:
                self.days()


class LocalEvents(Events):
    """Events in a local folder."""

    def __init__(self, root: Path) -> None:
        super().__init__(LocalFiles(root, named_by="EVENTS_URL", unavailable=EventsUnavailable))


def events_at(url: str, s3: Callable[[], S3Client]) -> Events:
    """Return the events at EVENTS_URL; `s3` makes the client if that is a bucket."""
    if not url.startswith("s3://"):
        return LocalEvents(Path(url))
    return Events(S3Files(s3(), *split_s3_url(url), named_by="EVENTS_URL", unavailable=EventsUnavailable))


@contextmanager
def _errors(verb: str, files: Files) -> Iterator[None]:
    """Turn file errors into EventsUnavailable: `cannot write file:///data/events/: No space left …`."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise EventsUnavailable(f"cannot {verb} {files.uri}: {why}; check EVENTS_URL, rights and space.") from error


def _record(line: bytes) -> Mapping[str, Any] | None:
    checksum, text = line[:9], line[9:]
    try:
        record = json.loads(text) if checksum == b"%08x " % zlib.crc32(text) else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None

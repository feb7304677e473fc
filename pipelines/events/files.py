"""The files of End Call Events, in a local folder or a bucket (docs/events.md): how lines are framed, kept and read.

A line's checksum shows whether a crash or a disk damaged it; the line break, which JSON in ASCII never holds, shows
where a line that is still being written begins. Every process appends whole lines to its own files, so any number of
receivers may share a folder or bucket.
"""

import errno
import json
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple, TypeAlias

from ulid import ULID

from pipelines.aws import S3Client, split_s3_url
from pipelines.errors import ExpectedError
from pipelines.ledger.files import Files, LocalFiles, S3Files, date_of, make_folders, sync_folder

Line = tuple[str, bytes]
"""A folder, ending in a slash, and one framed line."""

FILE_BYTES = 64 << 20
FILE_SECONDS = 3600.0
_FILE_MODE = 0o600  # events hold telephone numbers
_SUFFIX = ".events"


class EventsUnavailable(ExpectedError):  # noqa: N818 - named after its cause, like LedgerUnavailable
    """The events cannot be written or read now. One sentence: what, where, what to do."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The lines in a piece of a file.

    `records`: the intact lines. `damaged`: whole lines that were altered. `settled`: the number of bytes
    from the piece's start that need not be read again; they end before the first damaged or unfinished line.
    """

    records: Sequence[Mapping[str, Any]]
    damaged: int
    settled: int


class StoredFile(NamedTuple):
    """One file of events, and its length in bytes when it was listed."""

    name: str
    size: int


def frame(record: Mapping[str, Any]) -> bytes:
    """Return the line for a record."""
    text = json.dumps(record, separators=(",", ":")).encode("ascii")
    return b"%08x %b\n" % (zlib.crc32(text), text)


def read_frames(data: bytes) -> Frames:
    """Read the lines in data that begins at the start of a line."""
    records: list[Mapping[str, Any]] = []
    damaged = settled = 0
    for line in data.split(b"\n")[:-1]:
        record = _record(line)
        if record is None:
            damaged += 1
        else:
            records.append(record)
        if not damaged:
            settled += len(line) + 1
    return Frames(records, damaged, settled)


def day_folder(day: date) -> str:
    """Return the folder of the events whose calls began on the local `day`."""
    return f"date={day.isoformat()}/"


def malformed_folder(day: date) -> str:
    """Return the folder of the UTC `day` for requests that were not events."""
    return f"malformed/date={day.isoformat()}/"


@dataclass(slots=True)
class _OpenFile:
    """A file that is appended to. `size`: the number of bytes that are known to be durable."""

    path: Path
    opened_at: float
    size: int = 0


class _StoredEvents:
    """Reading stored events, the same for a folder and a bucket."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def days(self) -> list[date]:
        """Return the dates that have events, sorted, with one request per 1000."""
        return sorted(day for name in self._files.folders("") if (day := date_of(name)))

    def files(self, folder: str) -> list[StoredFile]:
        """Return the files of a folder with their current sizes, sorted, with one request per 1000."""
        return [StoredFile(name, size) for name, size in self._files.sizes(folder).items() if name.endswith(_SUFFIX)]

    def read(self, name: str, start: int = 0) -> bytes:
        """Return a file's bytes from `start` to its end."""
        with _errors("read", self._files):
            return self._files.read(name)[start:]


class LocalEvents(_StoredEvents):
    """Events in a local folder. One thread at a time may write."""

    def __init__(self, root: Path) -> None:
        super().__init__(LocalFiles(root, named_by="EVENTS_URL", unavailable=EventsUnavailable))
        self._root = root
        self._open: dict[str, _OpenFile] = {}

    def write(self, lines: Iterable[Line]) -> None:
        """Append to one file for each folder, and sync it. If this raises, none of the lines may be acknowledged."""
        for folder, data in _by_folder(lines).items():
            with _errors("write", self._root):
                self._append(folder, data)

    def read(self, name: str, start: int = 0) -> bytes:
        """Return a file's bytes from `start` to its present end; it may be growing, so only these are read."""
        with _errors("read", self._root), (self._root / name).open("rb") as file:
            file.seek(start)
            return file.read()

    def probe(self) -> None:
        """Write, sync and remove a file, to prove that events could be kept."""
        with _errors("write", self._root):
            make_folders(self._root)
            with NamedTemporaryFile(dir=self._root, prefix=".probe-", buffering=0) as file:
                file.write(b"probe\n")
                os.fsync(file.fileno())

    def _append(self, folder: str, data: bytes) -> None:
        file = self._file(folder)
        try:
            with open(file.path, "ab", opener=lambda path, _: os.open(path, os.O_APPEND | os.O_WRONLY)) as appended:
                appended.write(data)
                appended.flush()
                os.fdatasync(appended.fileno())
                is_removed = os.fstat(appended.fileno()).st_nlink == 0
            if is_removed:  # the bytes of an unlinked file are lost
                raise FileNotFoundError
        except OSError as error:
            # Bytes that were not synced may be torn, and a reader may have passed them: never append after them.
            del self._open[folder]
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, "the file being written was removed") from error
            if file.size == 0:
                file.path.unlink(missing_ok=True)  # holds nothing that was acknowledged; a full disk makes many of them
            raise
        file.size += len(data)

    def _file(self, folder: str) -> _OpenFile:
        """Return the file to append to: a new one if there is none, or if it is large or old."""
        file = self._open.get(folder)
        if file is None or file.size >= FILE_BYTES or time.monotonic() - file.opened_at >= FILE_SECONDS:
            make_folders(self._root / folder)
            file = _OpenFile(self._root / folder / f"{ULID()}{_SUFFIX}", time.monotonic())
            file.path.touch(_FILE_MODE, exist_ok=False)
            sync_folder(file.path.parent)
            self._open[folder] = file
        return file


class S3Events(_StoredEvents):
    """Events in a bucket, an object for each folder of a batch. Needs s3:ListBucket, s3:PutObject or s3:GetObject."""

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._in_bucket = S3Files(client, bucket, prefix, named_by="EVENTS_URL", unavailable=EventsUnavailable)
        super().__init__(self._in_bucket)

    def write(self, lines: Iterable[Line]) -> None:
        """Put new objects, with their MD5. If this raises, none of the lines may be acknowledged."""
        for folder, data in _by_folder(lines).items():
            with _errors("write", self._in_bucket):
                self._in_bucket.create(f"{folder}{ULID()}{_SUFFIX}", data, "application/octet-stream")

    def probe(self) -> None:
        """List the dates. Only the first event shows whether the credentials may put objects as well."""
        self.days()


Events: TypeAlias = LocalEvents | S3Events
"""The stored events. Every method raises EventsUnavailable if the folder or bucket does not answer."""


def events_at(url: str, s3: Callable[[], S3Client]) -> Events:
    """Return the events at EVENTS_URL; `s3` makes the client if that is a bucket."""
    return S3Events(s3(), *split_s3_url(url)) if url.startswith("s3://") else LocalEvents(Path(url))


@contextmanager
def _errors(verb: str, where: object) -> Iterator[None]:
    """Turn file errors into EventsUnavailable: `cannot write /data/events: No space left …`."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise EventsUnavailable(f"cannot {verb} {where}: {why}; check EVENTS_URL, its rights and its space.") from error


def _record(line: bytes) -> Mapping[str, Any] | None:
    checksum, text = line[:9], line[9:]
    try:
        record = json.loads(text) if checksum == b"%08x " % zlib.crc32(text) else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _by_folder(lines: Iterable[Line]) -> dict[str, bytes]:
    folders: defaultdict[str, list[bytes]] = defaultdict(list)
    for folder, line in lines:
        folders[folder].append(line)
    return {folder: b"".join(parts) for folder, parts in folders.items()}

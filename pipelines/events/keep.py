"""Makes a batch of lines durable: appended to files of a local folder, or put into a bucket as new objects.

```
date=YYYY-MM-DD/<ulid>.events             events, by the local day of their call's start
malformed/date=YYYY-MM-DD/<ulid>.events   what was no event, by the UTC day on which it came
```

Every process writes files of its own, so any number of receivers may share a place. When `write` returns, the batch
survives a killed process and a power cut; when it raises, none of it may be acknowledged, though some may be there.
Only for one thread at a time. Reading back is `stored.py`.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import time
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from botocore.exceptions import ClientError
from ulid import ULID

from pipelines.events.place import SUFFIX, s3_place, told
from pipelines.ledger.files import make_folders, sync_folder

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Line = tuple[str, bytes]
"""Folder, with its last slash, and one framed line."""

FILE_BYTES = 64 << 20
FILE_SECONDS = 3600.0
_OPEN_FILES = 16
_FILE_MODE = 0o600  # events hold telephone numbers


class Keeper(Protocol):
    """Where lines go."""

    def write(self, lines: Iterable[Line]) -> None:
        """Make all lines durable.

        Raises:
            EventsUnavailable: at least one of them is not.
        """
        ...

    def probe(self) -> None:
        """Prove that the place can be written, without leaving an event there.

        Raises:
            EventsUnavailable: it cannot.
        """
        ...

    def close(self) -> None:
        """Close what is open; nothing is written after it."""
        ...


@dataclass(slots=True)
class _Open:
    """A file being appended to. `size`: the bytes that are known to be durable."""

    path: Path
    handle: int
    opened_at: float
    size: int = 0


class LocalKeeper:
    """Appends to files under `root`, and syncs each file once a batch."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = Path(root)
        self._clock = clock
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def write(self, lines: Iterable[Line]) -> None:
        """Append, then sync; one file for each folder."""
        for folder, data in _by_folder(lines).items():
            with told("write", str(self._root)):
                self._append(folder, data)

    def probe(self) -> None:
        """Write, sync and remove a file."""
        with told("write", str(self._root)):
            make_folders(self._root)
            file = self._root / f".probe-{uuid.uuid4().hex}"
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _FILE_MODE)
            try:
                os.write(handle, b"probe\n")
                os.fsync(handle)
            finally:
                os.close(handle)
                file.unlink()

    def close(self) -> None:
        """Close all files."""
        for folder in list(self._open):
            self._leave(folder)

    def _append(self, folder: str, data: bytes) -> None:
        file = self._file(folder)
        try:
            _write_all(file.handle, data)
            os.fdatasync(file.handle)
            removed = os.fstat(file.handle).st_nlink == 0
        except OSError:
            # What was not synced may be torn, and a reader may have gone past it: never append behind it.
            self._leave(folder)
            if file.size == 0:
                file.path.unlink(missing_ok=True)  # holds nothing that was acknowledged; a full disk makes many of them
            raise
        file.size += len(data)
        if removed:
            # Somebody cleared the folder: what is appended to a file without a name is lost with this process.
            self._leave(folder)
            raise FileNotFoundError(errno.ENOENT, "the file being written was removed")

    def _file(self, folder: str) -> _Open:
        file = self._open.get(folder)
        if file and (file.size >= FILE_BYTES or self._clock() - file.opened_at >= FILE_SECONDS):
            self._leave(folder)
            file = None
        if file is None:
            while len(self._open) >= _OPEN_FILES:
                self._leave(next(iter(self._open)))
            file = self._open[folder] = self._create(folder)
        self._open.move_to_end(folder)
        return file

    def _create(self, folder: str) -> _Open:
        where = self._root / folder
        make_folders(where)
        path = where / f"{ULID()}{SUFFIX}"
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, _FILE_MODE)
        try:
            sync_folder(where)
        except OSError:
            os.close(handle)
            raise
        return _Open(path, handle, self._clock())

    def _leave(self, folder: str) -> None:
        os.close(self._open.pop(folder).handle)


class S3Keeper:
    """Puts one object for each folder of a batch. Needs s3:PutObject and s3:ListBucket; nothing is ever replaced."""

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def write(self, lines: Iterable[Line]) -> None:
        """Put new objects; the server checks the bytes by their MD5."""
        for folder, data in _by_folder(lines).items():
            with told("write", s3_place(self._bucket, self._prefix)):
                self._put(f"{self._prefix}{folder}{ULID()}{SUFFIX}", data)

    def probe(self) -> None:
        """List one key: that the right to put is there as well is shown by the first event."""
        with told("reach", s3_place(self._bucket, self._prefix)):
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _put(self, key: str, data: bytes) -> None:
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=data,
                ContentMD5=md5,
                ContentType="application/octet-stream",
                IfNoneMatch="*",
            )
        except ClientError as error:
            # A name of 80 random bits is nobody else's: after an answer that was lost botocore met its own object.
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 412 or not self._holds(key, data):
                raise

    def _holds(self, key: str, data: bytes) -> bool:
        return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read() == data


def _by_folder(lines: Iterable[Line]) -> dict[str, bytes]:
    folders: defaultdict[str, list[bytes]] = defaultdict(list)
    for folder, line in lines:
        folders[folder].append(line)
    return {folder: b"".join(parts) for folder, parts in folders.items()}


def _write_all(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]

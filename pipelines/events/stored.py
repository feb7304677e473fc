"""The stored events, read back: which dates there are, which files, and what they hold from a given byte on.

Files of a local folder may be growing while they are read. Written by `keep.py`; never changed from here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipelines.events.place import SUFFIX, s3_place, told

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_DATE = "date="


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of events, and its length in bytes when it was listed."""

    name: str
    size: int


class StoredEvents(Protocol):
    """Every method raises EventsUnavailable when the place does not answer."""

    def days(self) -> list[date]:
        """The dates that have events, sorted; costs by the number of dates."""
        ...

    def files(self, folder: str) -> list[StoredFile]:
        """The files of a folder, sorted; none when there is no such folder."""
        ...

    def read(self, name: str, start: int = 0) -> bytes:
        """A file's bytes from `start` on."""
        ...


def day_folder(day: date) -> str:
    """Where the events lie whose calls began on the local `day`."""
    return f"{_DATE}{day.isoformat()}/"


def malformed_folder(day: date) -> str:
    """Where that lies which came on the UTC `day` and was no event."""
    return f"malformed/{_DATE}{day.isoformat()}/"


class LocalStored:
    """Events in a local folder."""

    def __init__(self, root: Path) -> None:
        self._root = Path(root)

    def days(self) -> list[date]:
        """The folders of dates."""
        with told("list", str(self._root)):
            try:
                return _dates(entry.name for entry in os.scandir(self._root) if entry.is_dir())
            except FileNotFoundError:
                return []

    def files(self, folder: str) -> list[StoredFile]:
        """The files of a folder as long as they are now."""
        with told("list", str(self._root)):
            try:
                found = [
                    StoredFile(f"{folder}{entry.name}", entry.stat().st_size)
                    for entry in os.scandir(self._root / folder)
                    if entry.name.endswith(SUFFIX)
                ]
            except FileNotFoundError:
                return []
        return sorted(found, key=lambda file: file.name)

    def read(self, name: str, start: int = 0) -> bytes:
        """A file's bytes, as many as there are."""
        with told("read", str(self._root)), (self._root / name).open("rb") as file:
            file.seek(start)
            return file.read()


class S3Stored:
    """Events in a bucket. Needs s3:ListBucket and s3:GetObject."""

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def days(self) -> list[date]:
        """The folders of dates: one request per 1000."""
        names: list[str] = []
        with told("list", self._place):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + _DATE, Delimiter="/"
            )
            for page in pages:
                names += [item["Prefix"].rstrip("/").rpartition("/")[2] for item in page.get("CommonPrefixes", [])]
        return _dates(iter(names))

    def files(self, folder: str) -> list[StoredFile]:
        """The objects of a folder: one request per 1000."""
        found: list[StoredFile] = []
        with told("list", self._place):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + folder
            )
            for page in pages:
                found += [
                    StoredFile(item["Key"].removeprefix(self._prefix), item["Size"])
                    for item in page.get("Contents", [])
                    if item["Key"].endswith(SUFFIX)
                ]
        return sorted(found, key=lambda file: file.name)

    def read(self, name: str, start: int = 0) -> bytes:
        """An object's bytes; objects never grow, so `start` spares no request."""
        with told("read", self._place):
            return self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()[start:]

    @property
    def _place(self) -> str:
        return s3_place(self._bucket, self._prefix)


def _dates(names: Iterator[str]) -> list[date]:
    found = []
    for name in names:
        try:
            found.append(date.fromisoformat(name.removeprefix(_DATE)))
        except ValueError:
            continue  # `malformed`, or a folder of somebody else's
    return sorted(found)

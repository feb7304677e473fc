"""Store the ledger's files in a local folder or under an S3 prefix, behind one small interface.

A file appears whole or not at all, and is never changed or removed.
"""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.aws import error_code, reason, status

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Names: TypeAlias = list[str]  # inside the classes `list` is the method

_PARTIAL = ".partial"
_BODY_READS = 3
_CONFLICTED_PUTS = 3


class LedgerError(Exception):
    """The ledger could not do what it was asked. One sentence: what, where, what to do."""


class LedgerDamaged(LedgerError):  # noqa: N818 - a caller reads "except LedgerDamaged"
    """A part of the ledger is damaged or gone. It is never skipped: a date that lacks a part would look complete."""


class LedgerUnavailable(LedgerError):  # noqa: N818 - likewise
    """The folder or bucket cannot be read or written now. Another run may succeed; nothing was half written."""


class LocalFiles:
    """Files in a local folder, which is created with the first file. Names are relative, with forward slashes."""

    def __init__(self, root: Path) -> None:
        self._root = Path(root)

    def __repr__(self) -> str:
        return f"LocalFiles({str(self._root)!r})"

    def list(self, prefix: str) -> Names:
        """Return the names that begin with `prefix`, at any depth, sorted; not what a killed writer left behind."""
        above, _, start = prefix.rpartition("/")
        folder = self._root / _checked(above or ".")
        names: Names = []
        with self._errors("list", prefix):
            for where, folders, files in os.walk(folder, onerror=_unless_absent):
                if where == str(folder):  # what begins otherwise is not walked: it may be years
                    folders[:] = [name for name in folders if name.startswith(start)]
                paths = (Path(where, file) for file in files if not _is_partial(file))
                names += [path.relative_to(self._root).as_posix() for path in paths]
        return sorted(name for name in names if name.startswith(prefix))

    def folders(self, prefix: str) -> Names:
        """Return the plain names of the folders directly under `prefix` that hold a file, sorted, as a bucket would."""
        folder = self._root / _checked(prefix.rstrip("/") or ".")
        with self._errors("list", prefix):
            try:
                return sorted(e.name for e in os.scandir(folder) if e.is_dir() and _holds_a_file(Path(e.path)))
            except FileNotFoundError:
                return []

    def read(self, name: str) -> bytes:
        """Return a file's bytes; FileNotFoundError if it is not there."""
        with self._errors("read", name):
            return (self._root / _checked(name)).read_bytes()

    def create(self, name: str, data: bytes) -> None:
        """Write a new file, durably, whole or not at all; FileExistsError if the name is taken.

        Written next to the name, synced, then linked: a link appears whole and refuses a name that is taken.
        """
        path = self._root / _checked(name)
        with self._errors("write", name):
            make_folders(path.parent)
            unnamed = path.parent / f".{uuid.uuid4().hex}{_PARTIAL}"
            try:
                with open(unnamed, "xb", opener=partial(os.open, mode=0o600)) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                path.hardlink_to(unnamed)
            finally:
                unnamed.unlink(missing_ok=True)
            sync_folder(path.parent)

    @contextmanager
    def _errors(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise FileExistsError(f"the ledger file {name} exists already") from None
        except FileNotFoundError:
            raise FileNotFoundError(f"the ledger file {name} is not there") from None
        except OSError as error:
            raise LedgerUnavailable(
                f"cannot {verb} {name or 'the ledger'} in its folder: {error.strerror or type(error).__name__}; "
                "check the folder that LEDGER_URL names, its rights and the free space."
            ) from error


class S3Files:
    """Objects in an S3 bucket under a prefix. One boto3 client may be shared by many threads.

    Needs s3:ListBucket, s3:GetObject and s3:PutObject. `named_by` is the variable that names the bucket.
    """

    def __init__(self, client: S3Client, bucket: str, prefix: str, *, named_by: str = "LEDGER_URL") -> None:
        self._client = client
        self._bucket = bucket
        self._named_by = named_by
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def __repr__(self) -> str:
        return f"S3Files('s3://{self._bucket}/{self._prefix}')"

    def list(self, prefix: str) -> Names:
        """Return the names that begin with `prefix`: one request per 1000 names."""
        with self._errors("list", prefix):
            paginator = self._client.get_paginator("list_objects_v2")
            pages = paginator.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix)
            keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return sorted(key.removeprefix(self._prefix) for key in keys if not key.endswith("/"))

    def folders(self, prefix: str) -> Names:
        """Return the folders directly under `prefix`: one request per 1000 folders, however much they hold."""
        with self._errors("list", prefix):
            paginator = self._client.get_paginator("list_objects_v2")
            pages = paginator.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix, Delimiter="/")
            return sorted(item["Prefix"].split("/")[-2] for page in pages for item in page.get("CommonPrefixes", []))

    def read(self, name: str) -> bytes:
        """Return an object's bytes. A body that is cut off is requested again: botocore retries only the request."""
        with self._errors("read", name):
            for _ in range(_BODY_READS - 1):
                body = self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"]
                try:
                    return body.read()
                except BotoCoreError:
                    body.close()
            return self._client.get_object(Bucket=self._bucket, Key=self._key(name))["Body"].read()

    def create(self, name: str, data: bytes) -> None:
        """Put a new object. Looks first, because some servers ignore `IfNoneMatch`; sends the MD5, because some check
        nothing else.
        """
        if self._exists(name):
            raise FileExistsError(f"the ledger file {name} exists already")
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        with self._errors("write", name):
            for tries_left in reversed(range(_CONFLICTED_PUTS)):
                try:
                    self._client.put_object(
                        Bucket=self._bucket,
                        Key=self._key(name),
                        Body=data,
                        ContentMD5=md5,
                        ContentType="application/vnd.apache.parquet",
                        IfNoneMatch="*",
                    )
                except ClientError as error:
                    if status(error) == 409 and tries_left:  # another writer is at the same name just now
                        continue
                    # After an answer that was lost on its way botocore puts again, and meets its own object.
                    if status(error) == 412 and self.read(name) == data:
                        return
                    if status(error) == 412:
                        raise FileExistsError(f"the ledger file {name} exists already") from error
                    raise
                return

    def _exists(self, name: str) -> bool:
        with self._errors("write", name):
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._key(name))
            except ClientError as error:
                if status(error) == 404:
                    return False
                raise
            return True

    def _key(self, name: str) -> str:
        return self._prefix + _checked(name)

    @contextmanager
    def _errors(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            if error_code(error) == "NoSuchKey":
                raise FileNotFoundError(f"the ledger file {name} is not there") from error
            raise self._unavailable(verb, name, error, error_code(error)) from error
        except BotoCoreError as error:
            raise self._unavailable(verb, name, error, type(error).__name__) from error

    def _unavailable(self, verb: str, name: str, error: Exception, said: str) -> LedgerUnavailable:
        what = f"cannot {verb} {name or 'the ledger'} in the bucket {self._bucket}"
        if said == "NoSuchBucket":
            return LedgerUnavailable(
                f"{what}: there is no such bucket (NoSuchBucket); create it, or correct {self._named_by}."
            )
        if why := reason(error):
            return LedgerUnavailable(f"{what}: {why}.")
        return LedgerUnavailable(
            f"{what}: {said}; check {self._named_by} and the rights s3:ListBucket, s3:GetObject and s3:PutObject."
        )


Files: TypeAlias = LocalFiles | S3Files


def _checked(name: str) -> str:
    """Refuse a name that leads out of the root."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        raise ValueError("a ledger file's name must be a relative path with forward slashes and without '..'.")
    return name


def _is_partial(name: str) -> bool:
    return name.startswith(".") and name.endswith(_PARTIAL)


def _holds_a_file(folder: Path) -> bool:
    return any(not _is_partial(file) for _, _, files in os.walk(folder) for file in files)


def _unless_absent(error: OSError) -> None:
    """Hand to `os.walk`, which is silent about every error otherwise: a folder not made yet is merely empty."""
    if not isinstance(error, FileNotFoundError):
        raise error


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, for the owner alone, each one's entry synced."""
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        path.mkdir(0o700, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's new entry survive a power cut, not only a killed process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

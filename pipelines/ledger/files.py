"""Files in a local folder or under an S3 prefix: each appears whole or not at all, and never changes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from datetime import date
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from botocore import exceptions as boto

from pipelines.aws import S3Client, as_base64, error_code, is_transient, md5_of, reason
from pipelines.errors import ExpectedError

Names: TypeAlias = list[str]  # inside the classes `list` is the method

_UNFINISHED = ".unfinished"
_READS = 3
_CUT_OFF = (boto.IncompleteReadError, boto.ReadTimeoutError, boto.ResponseStreamingError)


class LedgerError(ExpectedError):
    """A request to the ledger failed. The text is one sentence: what, where, what to do."""


class LedgerDamaged(LedgerError):  # noqa: N818 - a caller reads "except LedgerDamaged"
    """A part of the ledger is damaged or missing. It is never skipped: a date without the part would look complete."""


class LedgerUnavailable(LedgerError):  # noqa: N818 - likewise
    """The folder or bucket cannot be read or written now. Another run may succeed; nothing is half written."""


@dataclass(frozen=True, eq=False, repr=False)
class LocalFiles:
    """Files in a local folder, which is made with the first file. Names are relative, with forward slashes.

    `named_by` is the variable that names the folder; `unavailable` is raised with a sentence when it cannot be used.
    """

    root: Path
    _: KW_ONLY
    named_by: str = "LEDGER_URL"
    unavailable: type[Exception] = LedgerUnavailable

    def __repr__(self) -> str:
        return f"LocalFiles({str(self.root)!r})"

    @property
    def uri(self) -> str:
        """The address of the folder."""
        return f"{self.root.absolute().as_uri()}/"

    def list(self, prefix: str) -> Names:
        """Return the names that begin with `prefix`, at any depth, sorted."""
        above, _, start = prefix.rpartition("/")
        folder = self.root / _checked(above or ".")
        names: Names = []
        with self._errors("list", prefix):
            for where, folders, files in os.walk(folder, onerror=_unless_absent):
                if where == str(folder):  # other folders are not walked: they may hold years of files
                    folders[:] = [name for name in folders if name.startswith(start)]
                names += [Path(where, file).relative_to(self.root).as_posix() for file in files]
        return sorted(name for name in names if name.startswith(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the names that begin with `prefix`, at any depth, with their sizes in bytes."""
        names = self.list(prefix)
        with self._errors("list", prefix):
            return {name: (self.root / name).stat().st_size for name in names}

    def folders(self, prefix: str) -> Names:
        """Return the names of the folders directly under `prefix` that hold something, sorted."""
        folder = self.root / _checked(prefix.rstrip("/") or ".")
        with self._errors("list", prefix):
            _, folders, _ = next(os.walk(folder, onerror=_unless_absent), ("", [], []))
            # A writer that was killed may have left a folder without a file, which S3 would not list.
            return sorted(name for name in folders if _holds_something(folder / name))

    def read(self, name: str) -> bytes:
        """Return a file's bytes; raise FileNotFoundError if there is no such file."""
        with self._errors("read", name):
            return (self.root / _checked(name)).read_bytes()

    def create(self, name: str, data: bytes) -> None:
        """Write a new file durably, whole or not at all."""
        path, unfinished = self.root / _checked(name), self.root / _UNFINISHED / uuid.uuid4().hex
        with self._errors("write", name):
            make_folders(unfinished.parent)
            try:
                with open(unfinished, "xb", opener=partial(os.open, mode=0o600)) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                make_folders(path.parent)
                path.hardlink_to(unfinished)  # appears whole, and fails if the name is taken
            finally:
                unfinished.unlink(missing_ok=True)
            sync_folder(path.parent)

    @contextmanager
    def _errors(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(f"the ledger file {name} does not exist") from None
        except OSError as error:
            raise self.unavailable(
                f"cannot {verb} {name or 'the files'} in its folder: {error.strerror or type(error).__name__}; "
                f"check the folder that {self.named_by} names, its rights and the free space."
            ) from error


@dataclass(eq=False, repr=False)
class S3Files:
    """Objects in an S3 bucket under a prefix. `named_by` and `unavailable`: as in `LocalFiles`."""

    client: S3Client
    bucket: str
    prefix: str
    _: KW_ONLY
    named_by: str = "LEDGER_URL"
    unavailable: type[Exception] = LedgerUnavailable

    def __post_init__(self) -> None:
        self.prefix = f"{self.prefix.strip('/')}/".lstrip("/")

    def __repr__(self) -> str:
        return f"S3Files({self.uri!r})"

    @property
    def uri(self) -> str:
        """The address of the prefix."""
        return f"s3://{self.bucket}/{self.prefix}"

    def list(self, prefix: str) -> Names:
        """Return the names that begin with `prefix`, sorted: one request per 1000 names."""
        return list(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the names that begin with `prefix`, with their sizes in bytes."""
        found: dict[str, int] = {}
        for page in self._pages(prefix):
            for item in page.get("Contents", []):
                name = item["Key"].removeprefix(self.prefix)
                if not name.endswith("/"):
                    found[name] = item["Size"]
        return dict(sorted(found.items()))

    def folders(self, prefix: str) -> Names:
        """Return the folders directly under `prefix`: one request per 1000 folders, whatever they hold."""
        pages = self._pages(prefix, Delimiter="/")  # some servers name a folder on two pages
        return sorted({item["Prefix"].split("/")[-2] for page in pages for item in page.get("CommonPrefixes", [])})

    def _pages(self, prefix: str, **options: Any) -> Iterator[Any]:  # noqa: ANN401 - as botocore names them
        with self._errors("list", prefix):
            paginator = self.client.get_paginator("list_objects_v2")
            yield from paginator.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix, **options)

    def read(self, name: str) -> bytes:
        """Return an object's bytes; raise FileNotFoundError if there is no such object."""
        with self._errors("read", name):
            for _ in range(_READS - 1):
                with suppress(*_CUT_OFF):  # botocore repeats a request, but not the reading of its body
                    return self._body(name)
            return self._body(name)

    def _body(self, name: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=self._key(name))["Body"].read()

    def create(self, name: str, data: bytes) -> None:
        """Put a new object, whose name nobody else may use: the put is not conditional."""
        md5 = as_base64(md5_of(data))  # some servers check nothing else
        with self._errors("write", name):
            self.client.put_object(Bucket=self.bucket, Key=self._key(name), Body=data, ContentMD5=md5)

    def _key(self, name: str) -> str:
        return self.prefix + _checked(name)

    @contextmanager
    def _errors(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except (boto.ClientError, boto.BotoCoreError) as error:
            said = error_code(error) if isinstance(error, boto.ClientError) else type(error).__name__
            if said in {"NoSuchKey", "404"}:
                raise FileNotFoundError(f"the file {name} does not exist") from error
            why = f"{said}; check {self.named_by} and the rights s3:ListBucket, s3:GetObject and s3:PutObject"
            if is_transient(error):
                why = f"the answer was {said}, even after retries; the next run continues from here"
            what = f"cannot {verb} {name or 'the files'} in the bucket {self.bucket}"
            raise self.unavailable(f"{what}: {reason(error) or why}.") from error


Files: TypeAlias = LocalFiles | S3Files


def _checked(name: str) -> str:
    """Return the name; raise an error if it leads out of the root."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        raise ValueError("a ledger file's name must be a relative path with forward slashes and without '..'.")
    return name


def _unless_absent(error: OSError) -> None:
    """Raise errors that `os.walk` would hide; a folder that does not exist yet counts as empty."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _holds_something(folder: Path) -> bool:
    with os.scandir(folder) as entries:  # `iterdir` would read all names first
        return any(entries)


def date_of_folder(folder: str) -> date | None:
    """Return the date that a folder `date=YYYY-MM-DD` names, or None for any other folder.

    Years 1 and 9999 do not count, since adjacent days could not be computed.
    """
    text = folder.removeprefix("date=")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    plain = folder == f"date={day.isoformat()}"  # `fromisoformat` also reads 20261117 and 2026-W47-2
    return day if plain and date.min.year < day.year < date.max.year else None


def make_folders(folder: Path) -> None:
    """Make a folder and its parents, for the owner alone, and sync each new entry."""
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        path.mkdir(0o700, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that its new entries survive a power cut and not only a killed process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""The bucket and the ledger's place: rights, create-only puts, checksums, protection, clock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ulid import ULID

from pipelines.archive.bucket import Bucket
from pipelines.archive.capabilities import Probes
from pipelines.archive.errors import KeyExists, StorageError
from pipelines.archive.keys import probe_key
from pipelines.archive.transfer import require_arrived
from pipelines.ledger.files import Files, LedgerError
from pipelines.steps.connection.lines import Line, clock_line, failed, not_tried, ok, warning

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BODY = b"ringcx-archive: a connection check put this here\n"
_OF_A_PUT = ("create-only puts", "checksums", "get", "delete")


def without_client(error: StorageError) -> Iterator[Line]:
    """Say that boto3 cannot make a client, so that nothing of S3 can be tried."""
    yield failed("S3 list", error)
    for subject in (
        *(f"S3 {what}" for what in ("put", *_OF_A_PUT)),
        "clock against S3",
        "S3 versioning",
        "S3 Object Lock",
    ):
        yield not_tried(subject, "there is no client for it.")


def bucket_lines(bucket: Bucket, probes: Probes, clock: Callable[[], datetime], client: S3Client) -> Iterator[Line]:
    """Try the bucket as runs use it; what was put is removed again where that is allowed."""
    dates: list[str] = []

    def keep_date(http_response: Any, **_: object) -> None:  # noqa: ANN401 - botocore's own; errors have a date too
        dates.extend(value for name, value in http_response.headers.items() if name.lower() == "date")

    client.meta.events.register("after-call.s3", keep_date)
    key = probe_key(bucket.prefix, f"connection-{ULID.from_datetime(clock())}")
    try:
        next(bucket.list_keys(f"{bucket.prefix}probes/"), None)
        yield ok("S3 list", "the bucket is there and may be listed.")
    except StorageError as error:
        yield failed("S3 list", error)
    try:
        _put(bucket, key)
    except StorageError as error:
        yield failed("S3 put", error)
        yield from (not_tried(f"S3 {what}", "nothing can be put.") for what in _OF_A_PUT)
    else:
        yield ok("S3 put", f"{key} was put.")
        for subject, look in (
            ("S3 create-only puts", lambda subject: _create_only(bucket, probes, key, subject)),
            ("S3 checksums", lambda subject: _checksums(bucket, subject)),
            ("S3 get", lambda subject: _get(bucket, key, subject)),
            ("S3 delete", lambda subject: _delete(probes, key, subject)),
        ):
            yield _tried(subject, look)
    if dates:
        yield clock_line("clock against S3", dates[-1], clock(), fails=True)
    else:
        yield not_tried("clock against S3", "S3 gave no answer with a date.")
    yield _tried("S3 versioning", lambda subject: _versioning(probes, subject))
    yield _tried("S3 Object Lock", lambda subject: _locking(probes, subject))


def ledger_line(files: Files, clock: Callable[[], datetime]) -> Line:
    """Whether the ledger's place can be read and written; nothing there is ever removed, so a tiny file stays."""
    name = f"probes/connection-{ULID.from_datetime(clock())}"
    try:
        files.folders("report_pulls/")
        files.create(name, _BODY)
        whole = files.read(name) == _BODY
    except (LedgerError, OSError) as error:
        return failed("ledger", error)
    if not whole:
        return failed("ledger", f"{name} in {files!r} is not what was put there; look at what stores it")
    return ok("ledger", f"its place can be read and written; {name} stays there.")


def _put(bucket: Bucket, key: str) -> None:
    sha256 = hashlib.sha256(_BODY).hexdigest()
    put = bucket.put_new(key, _BODY, sha256=sha256, content_type="text/plain")
    require_arrived(bucket, key, put, sha256=sha256)


def _tried(subject: str, look: Callable[[str], Line]) -> Line:
    try:
        return look(subject)
    except StorageError as error:
        return failed(subject, error)


def _create_only(bucket: Bucket, probes: Probes, key: str, subject: str) -> Line:
    try:
        _put(bucket, key)
    except KeyExists:
        pass
    else:
        return failed(subject, "a second put of the same key is not refused; check what is between this machine and S3")
    if not bucket.capabilities.create_only:
        return warning(
            subject,
            "are ignored by this store. The archive looks before each put, which is safe for the runs of one process; "
            "two processes that store the same recording at the same moment could overtake each other. Prefer a store "
            "that honours them.",
        )
    if not bucket.is_amazon and not probes.refuses_second_multipart():
        return warning(
            subject,
            "are honoured for small objects and ignored for uploads in parts. The archive looks before each upload, "
            "but two processes that store the same large recording at the same moment could overtake each other.",
        )
    return ok(subject, "a second put of the same key is refused, as it must be.")


def _checksums(bucket: Bucket, subject: str) -> Line:
    checksums = bucket.capabilities.checksums
    if checksums == "checked":
        return ok(subject, "bytes that do not fit their SHA-256 are refused, as they must be.")
    how = "does not compare SHA-256" if checksums == "ignored" else "does not take a SHA-256"
    return warning(
        subject,
        f"this store {how}. The archive sends the Content-MD5 of every put and compares the answer itself; run "
        "`python -m pipelines.verify --read-data` now and then, or choose a store that does.",
    )


def _get(bucket: Bucket, key: str, subject: str) -> Line:
    if bucket.get_bytes(key) == _BODY:
        return ok(subject, "what was put is read back as it was.")
    return failed(subject, f"{key} reads back differently from what was put; check the store")


def _delete(probes: Probes, key: str, subject: str) -> Line:
    if probes.remove(key):
        return warning(
            subject,
            "may delete: yes. Archiving needs no such right: take s3:DeleteObject from these credentials, and with "
            "versioning s3:DeleteObjectVersion too.",
        )
    return ok(subject, "may delete: no, as it should be; a tiny object stays under probes/.")


def _versioning(probes: Probes, subject: str) -> Line:
    on = probes.versioning()
    if on is None:
        return ok(subject, "may not be read with these credentials, which is fine: check it in the console.")
    if on:
        return ok(subject, "on.")
    return warning(subject, "off: what is overwritten or deleted by somebody is gone; switch it on for the bucket.")


def _locking(probes: Probes, subject: str) -> Line:
    found = probes.locking()
    if found is None:
        return ok(subject, "may not be read with these credentials, which is fine: check it in the console.")
    if found.enabled and found.default:
        return ok(subject, f"on, by default for {found.default}.")
    if found.enabled:
        return warning(subject, "on, but without a default retention nothing is locked: set one for the bucket.")
    return warning(subject, "off: archived recordings can be deleted by anybody with that right; switch it on.")

"""The bucket and the ledger's place: rights, create-only puts, checksums, protection, clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from ulid import ULID

from pipelines.archive.errors import StorageError
from pipelines.archive.probe import StoreProbe, answered_at
from pipelines.ledger.files import Files, LedgerError
from pipelines.steps.connection.lines import Line, clock_line, failed, not_tried, ok, warning

_BODY = b"ringcx-archive: a connection check put this here\n"
_NOT_PUT = "nothing can be put."


def bucket_lines(probe: StoreProbe, clock: Callable[[], datetime], *, is_amazon: bool) -> Iterator[Line]:
    """Try the bucket; what was put is removed again where that is allowed."""
    try:
        probe.look()
        yield ok("S3 list", "the bucket is there and may be listed.")
    except StorageError as error:
        yield failed("S3 list", error)
    try:
        date, now = probe.put(), clock()
    except StorageError as error:
        yield failed("S3 put", error)
        date, now = answered_at(error), clock()
        yield from (not_tried(f"S3 {what}", _NOT_PUT) for what in ("create-only puts", "checksums", "get", "delete"))
    else:
        yield ok("S3 put", f"{probe.key} was put.")
        for subject, look in (
            ("S3 create-only puts", lambda subject: _create_only(probe, subject, is_amazon=is_amazon)),
            ("S3 checksums", lambda subject: _checksums(probe, subject)),
            ("S3 get", lambda subject: _get(probe, subject)),
            ("S3 delete", lambda subject: _delete(probe, subject)),
        ):
            yield _tried(subject, look)
    if date is None:
        yield not_tried("clock against S3", "S3 gave no answer with a date.")
    else:
        yield clock_line("clock against S3", date, now, fails=True)
    yield _tried("S3 versioning", lambda subject: _versioning(probe, subject))
    yield _tried("S3 Object Lock", lambda subject: _locking(probe, subject))


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


def _tried(subject: str, look: Callable[[str], Line]) -> Line:
    try:
        return look(subject)
    except StorageError as error:
        return failed(subject, error)


def _create_only(probe: StoreProbe, subject: str, *, is_amazon: bool) -> Line:
    twice = probe.put_twice()
    if twice == "refused":
        return ok(subject, "a second put of the same key is refused, as it must be.")
    how = "are ignored by this store" if twice == "replaced" else "are not known to this store"
    if is_amazon:
        return failed(subject, f"{how}, which Amazon S3 never does; look at what stands between this machine and S3")
    return warning(
        subject,
        f"{how}. The archive looks before each put, which is safe for the runs of one process; two processes that "
        "store the same recording at the same moment could overtake each other. Prefer a store that honours them.",
    )


def _checksums(probe: StoreProbe, subject: str) -> Line:
    if probe.refuses_wrong("ChecksumSHA256"):
        return ok(subject, "bytes that do not fit their SHA-256 are refused, as they must be.")
    if probe.refuses_wrong("ContentMD5"):
        return warning(
            subject,
            "this store does not compare SHA-256, but refuses bytes that do not fit the Content-MD5 of every put.",
        )
    return warning(
        subject,
        "this store compares neither SHA-256 nor Content-MD5 with what arrives. The archive compares the answer "
        "itself; run `python -m pipelines.verify --read-data` now and then, or choose a store that does.",
    )


def _get(probe: StoreProbe, subject: str) -> Line:
    if probe.read():
        return ok(subject, "what was put is read back as it was.")
    return failed(subject, f"{probe.key} is not read back as it was put; look at what stores it")


def _delete(probe: StoreProbe, subject: str) -> Line:
    stayed = len(probe.stored)
    if probe.remove():
        return warning(
            subject,
            "may delete: yes. The archive never deletes: take s3:DeleteObject from these credentials, and with "
            "versioning s3:DeleteObjectVersion too.",
        )
    objects = "object" if stayed == 1 else "objects"
    return ok(subject, f"may delete: no, which is as it should be; {stayed} tiny {objects} stay under probes/.")


def _versioning(probe: StoreProbe, subject: str) -> Line:
    on = probe.versioning()
    if on is None:
        return ok(subject, "may not be read with these credentials, which is no fault: look at it in the console.")
    if on:
        return ok(subject, "on.")
    return warning(subject, "off: what is overwritten or deleted by somebody is gone; switch it on for the bucket.")


def _locking(probe: StoreProbe, subject: str) -> Line:
    found = probe.locking()
    if found is None:
        return ok(subject, "may not be read with these credentials, which is no fault: look at it in the console.")
    if found.enabled and found.default:
        return ok(subject, f"on, by default for {found.default}.")
    if found.enabled:
        return warning(subject, "on, but without a default retention nothing is locked: set one for the bucket.")
    return warning(subject, "off: whoever has the right can delete what is archived; switch it on for the bucket.")

"""The checks of the bucket and the ledger: permissions, create-only puts, checksums, protection, clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ulid import ULID

from pipelines.archive.bucket import Bucket
from pipelines.archive.capabilities import Probes
from pipelines.archive.errors import KeyExists
from pipelines.archive.keys import probe_key
from pipelines.aws import S3Client
from pipelines.ledger.files import Files
from pipelines.steps.connection.result import Graded, Result, check, compare_clocks

_BODY = b"ringcx-archive: a connection check put this here\n"
_UNREADABLE = "cannot be read with these credentials, which is fine: check it in the console"


@dataclass(slots=True)
class BucketCheck:
    """The checks of the bucket, used as runs use it; test objects are removed if the credentials allow it."""

    bucket: Bucket
    probes: Probes
    clock: Callable[[], datetime]
    _key: str = field(default="", init=False)
    _date: str = field(default="", init=False)

    def results(self, client: S3Client) -> Iterator[Result]:
        """Yield the results one after another; checks that need an object are not tried if it could not be put."""
        client.meta.events.register("after-call.s3", self._keep_date)  # also after errors
        self._key = probe_key(self.bucket.prefix, f"connection-{ULID.from_datetime(self.clock())}")
        listed = check("S3 list", self._list)
        yield listed
        put = check("S3 put", self._put)
        yield put
        why = "nothing can be put" if put.grade == "failed" else ""
        yield check("S3 create-only puts", self._create_only, not_tried=why)
        yield check("S3 checksums", self._checksums, not_tried=why)
        yield check("S3 get", self._get, not_tried=why)
        yield check("S3 delete", self._delete, not_tried=why)
        why = "" if self._date else "no response from S3 had a date"
        yield check("clock against S3", lambda: compare_clocks(self._date, self.clock(), fails=True), not_tried=why)
        why = "the bucket can be neither listed nor written" if listed.grade == put.grade == "failed" else ""
        yield check("S3 versioning", self._versioning, not_tried=why)
        yield check("S3 Object Lock", self._object_lock, not_tried=why)

    def _keep_date(self, http_response: Any, **_: object) -> None:  # noqa: ANN401 - botocore's own
        self._date = http_response.headers.get("date", self._date)

    def _list(self) -> Graded:
        next(self.bucket.list_keys(f"{self.bucket.prefix}probes/"), None)
        return "ok", "the bucket exists and can be listed"

    def _put(self) -> Graded:
        self.bucket.put_new(self._key, _BODY, content_type="text/plain")
        return "ok", f"{self._key} was put"

    def _create_only(self) -> Graded:
        with suppress(KeyExists):
            self._put()
            return "failed", "a second put of the same key is not refused; check what is between this machine and S3"
        if not self.bucket.capabilities.create_only:
            return "warning", (
                "this store ignores the condition of a create-only put. The archive looks before each put, which is "
                "safe for the runs of one process; two processes that store the same recording at the same moment "
                "could overtake each other. Prefer a store that honours the condition"
            )
        return "ok", "a second put of the same key is refused, as it should be"

    def _checksums(self) -> Graded:
        if self.bucket.capabilities.checks_sha256:
            return "ok", "bytes that do not match their SHA-256 are refused, as they should be"
        return "warning", (
            "this store checks no SHA-256. The archive sends each put's Content-MD5 and compares the response; run "
            "`ringcx-archive verify --read-data` regularly, or choose a store that checks it"
        )

    def _get(self) -> Graded:
        if self.bucket.get_bytes(self._key) == _BODY:
            return "ok", "the object that was put reads back unchanged"
        return "failed", f"{self._key} reads back differently from what was put; check the store"

    def _delete(self) -> Graded:
        if self.probes.remove(self._key):
            return "warning", (
                "allowed. Archiving does not need it: remove s3:DeleteObject from these credentials, and with "
                "versioning s3:DeleteObjectVersion too"
            )
        return "ok", "refused, as it should be; a tiny object stays under probes/"

    def _versioning(self) -> Graded:
        is_on = self.probes.versioning()
        if is_on is False:
            return "warning", "off: overwritten and deleted objects are lost; switch it on for the bucket"
        return "ok", "on" if is_on else _UNREADABLE

    def _object_lock(self) -> Graded:
        match self.probes.locking():
            case None:
                return "ok", _UNREADABLE
            case True, "":
                return "warning", "on, but without a default retention nothing is locked: set one for the bucket"
            case True, default:
                return "ok", f"on, by default for {default}"
        return "warning", "off: anyone who has the right to delete can delete archived recordings; switch it on"


def ledger_works(files: Files, now: datetime) -> Graded:
    """Write and read a tiny file in the ledger's folder or bucket. It stays, since nothing there is ever removed."""
    name = f"probes/connection-{ULID.from_datetime(now)}"
    files.folders("report_pulls/")
    files.create(name, _BODY)
    if files.read(name) != _BODY:
        return "failed", f"{name} in {files!r} is not what was put there; check what stores it"
    return "ok", f"can be read and written; {name} stays there"

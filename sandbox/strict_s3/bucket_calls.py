"""What is answered about a bucket: whether it is there, its settings, and what it holds."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote

from sandbox.strict_s3.errors import S3Error
from sandbox.strict_s3.messages import Answer, Request
from sandbox.strict_s3.objects import Bucket, Retention
from sandbox.strict_s3.xml import Content, document, parsed

_ITEMS = list[tuple[str, Content]]
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def xml_answer(root: str, content: Content, headers: Mapping[str, str] | None = None) -> Answer:
    """200 with a document."""
    return Answer(200, {"content-type": "application/xml", **(headers or {})}, document(root, content))


def require_name(name: str) -> None:
    """Require a valid name for a new bucket.

    Raises:
        S3Error: InvalidBucketName.
    """
    if not _NAME.fullmatch(name) or ".." in name or re.fullmatch(r"\d+\.\d+\.\d+\.\d+", name):
        raise S3Error("InvalidBucketName", BucketName=name)


def wanted_region(request: Request, endpoint: str) -> str:
    """The region that a CreateBucket asks for.

    Raises:
        S3Error: IllegalLocationConstraintException, when it is not the endpoint's.
    """
    sent = parsed(request.body).findtext("LocationConstraint") if request.body else None
    asked = {"EU": "eu-west-1", None: "us-east-1", "": "us-east-1"}.get(sent, sent)
    if asked != endpoint:
        shown = sent or "unspecified"
        message = f"The {shown} location constraint is incompatible for the endpoint this request was sent to."
        raise S3Error("IllegalLocationConstraintException", message)
    return str(asked)


def bucket_answer(bucket: Bucket, request: Request) -> tuple[str, Callable[[], Answer]]:
    """The IAM action that a request about a bucket needs, and what answers it.

    Raises:
        S3Error: NotImplemented, for a call this server does not know.
    """
    method, query = request.method, request.query
    if method == "HEAD":
        headers = {"x-amz-bucket-region": bucket.region, "x-amz-access-point-alias": "false"}
        return "s3:ListBucket", lambda: Answer(200, headers)
    if bucket.express and ({"versioning", "versions", "object-lock"} & set(query)):
        raise S3Error("NotImplemented")
    calls: dict[tuple[str, str], tuple[str, Callable[[], Answer]]] = {
        ("GET", "location"): ("s3:GetBucketLocation", lambda: _location(bucket)),
        ("GET", "versioning"): ("s3:GetBucketVersioning", lambda: _versioning(bucket)),
        ("PUT", "versioning"): ("s3:PutBucketVersioning", lambda: _set_versioning(bucket, request)),
        ("GET", "object-lock"): ("s3:GetBucketObjectLockConfiguration", lambda: _lock(bucket)),
        ("PUT", "object-lock"): ("s3:PutBucketObjectLockConfiguration", lambda: _set_lock(bucket, request)),
        ("GET", "encryption"): ("s3:GetEncryptionConfiguration", lambda: _encryption(bucket)),
        ("GET", "lifecycle"): ("s3:GetLifecycleConfiguration", _no_lifecycle),
        ("GET", "versions"): ("s3:ListBucketVersions", lambda: _list_versions(bucket, request)),
        ("GET", "uploads"): ("s3:ListBucketMultipartUploads", lambda: _list_uploads(bucket)),
    }
    for (verb, subresource), found in calls.items():
        if verb == method and subresource in query:
            return found
    if method == "GET" and query.get("list-type") == "2":
        return "s3:ListBucket", lambda: _list(bucket, request)
    raise S3Error("NotImplemented")


def _location(bucket: Bucket) -> Answer:
    return xml_answer("LocationConstraint", "" if bucket.region == "us-east-1" else bucket.region)


def _versioning(bucket: Bucket) -> Answer:
    return xml_answer("VersioningConfiguration", [("Status", bucket.versioning)] if bucket.versioning else [])


def _set_versioning(bucket: Bucket, request: Request) -> Answer:
    status = parsed(request.body).findtext("Status")
    if status == "Suspended" and bucket.locked:
        raise S3Error("InvalidRequest", "An Object Lock configuration is present on this bucket.")
    if status not in {"Enabled", "Suspended"}:
        raise S3Error("MalformedXML")
    bucket.versioning = "Enabled" if status == "Enabled" else "Suspended"
    return Answer()


def _lock(bucket: Bucket) -> Answer:
    if not bucket.locked:
        raise S3Error("ObjectLockConfigurationNotFoundError")
    rule: _ITEMS = []
    if bucket.retention:
        days: _ITEMS = [("Mode", bucket.retention.mode), ("Days", str(bucket.retention.days))]
        rule = [("Rule", [("DefaultRetention", days)])]
    return xml_answer("ObjectLockConfiguration", [("ObjectLockEnabled", "Enabled"), *rule])


def _set_lock(bucket: Bucket, request: Request) -> Answer:
    root = parsed(request.body)
    days, mode = root.findtext("Rule/DefaultRetention/Days"), root.findtext("Rule/DefaultRetention/Mode")
    if bucket.versioning != "Enabled":
        raise S3Error("InvalidRequest", "Versioning must be 'Enabled' to apply an Object Lock configuration")
    if (days is None) != (mode is None) or mode not in {None, "GOVERNANCE", "COMPLIANCE"}:
        raise S3Error("MalformedXML")
    bucket.locked = True
    bucket.retention = (
        Retention("COMPLIANCE" if mode == "COMPLIANCE" else "GOVERNANCE", int(days)) if days is not None else None
    )
    return Answer()


def _encryption(bucket: Bucket) -> Answer:
    key = bucket.demands.kms_key
    rule: _ITEMS = [("SSEAlgorithm", "aws:kms"), ("KMSMasterKeyID", key)] if key else [("SSEAlgorithm", "AES256")]
    return xml_answer("ServerSideEncryptionConfiguration", [("Rule", [("ApplyServerSideEncryptionByDefault", rule)])])


def _no_lifecycle() -> Answer:
    raise S3Error("NoSuchLifecycleConfiguration")


class _Page:
    """One page of keys and common prefixes."""

    def __init__(self, request: Request, after: str, *, markers: bool = False) -> None:
        query = request.query
        self.prefix = query.get("prefix", "")
        self.delimiter = query.get("delimiter", "")
        self.encoded = query.get("encoding-type") == "url"
        text = query.get("max-keys") or "1000"
        if not text.isdigit():
            raise S3Error("InvalidArgument", "Provided max-keys not an integer or within integer range")
        self.most = min(int(text), 1000)
        self.last = after
        self._markers = markers
        self.truncated = False
        self.folders: list[str] = []

    def keys(self, bucket: Bucket) -> Iterator[str]:
        """Keys to be shown, in order; prefixes go to `folders`."""
        after, shown = self.last, 0
        for key in bucket.keys(after):
            if not key.startswith(self.prefix):
                continue
            end = key.find(self.delimiter, len(self.prefix)) if self.delimiter else -1
            folder = key[: end + len(self.delimiter)] if end >= 0 else ""
            if folder and folder in {after, *self.folders[-1:]}:
                continue
            current = bucket.current(key)
            if current is None or (current.marker and not self._markers):
                continue
            if shown == self.most:
                self.truncated = True
                return
            shown += 1
            self.last = folder or key
            if folder:
                self.folders.append(folder)
            else:
                yield key

    def text(self, key: str) -> str:
        """A key as the client wants it."""
        return quote(key, safe="/", errors="surrogateescape") if self.encoded else key


def _list(bucket: Bucket, request: Request) -> Answer:
    query = request.query
    start = query.get("start-after", "")
    if bucket.express and (start or (query.get("prefix", "") and not query["prefix"].endswith("/"))):
        raise S3Error("InvalidRequest", "A directory bucket lists whole prefixes, which end in a slash.")
    token = query.get("continuation-token")
    if token is not None:
        try:
            start = base64.urlsafe_b64decode(token.encode()).decode(errors="surrogateescape")
        except (binascii.Error, ValueError):
            raise S3Error("InvalidArgument", "The continuation token provided is incorrect") from None
    page = _Page(request, start)
    found: _ITEMS = []
    for key in page.keys(bucket):
        version = bucket.get(key)
        item: _ITEMS = [
            ("Key", page.text(key)),
            ("LastModified", _time(version.modified)),
            ("ETag", f'"{version.etag}"'),
            *((("ChecksumAlgorithm", name.upper())) for name in version.checksums),
            ("Size", str(len(version.data))),
            ("StorageClass", version.headers.get("x-amz-storage-class", "STANDARD")),
        ]
        if query.get("fetch-owner") == "true":
            item.append(("Owner", [("ID", bucket.owner)]))
        found.append(("Contents", item))
    head: _ITEMS = [("Name", bucket.name), ("Prefix", page.text(page.prefix))]
    if page.delimiter:
        head.append(("Delimiter", page.text(page.delimiter)))
    if query.get("start-after"):
        head.append(("StartAfter", page.text(query["start-after"])))
    if token is not None:
        head.append(("ContinuationToken", token))
    if page.truncated:
        following = base64.urlsafe_b64encode(page.last.encode(errors="surrogateescape")).decode()
        head.append(("NextContinuationToken", following))
    if page.encoded:
        head.append(("EncodingType", "url"))
    head += [
        ("MaxKeys", str(page.most)),
        ("KeyCount", str(len(found) + len(page.folders))),
        ("IsTruncated", str(page.truncated).lower()),
    ]
    folders: _ITEMS = [("CommonPrefixes", [("Prefix", page.text(folder))]) for folder in page.folders]
    return xml_answer("ListBucketResult", head + found + folders)


def _list_versions(bucket: Bucket, request: Request) -> Answer:
    page = _Page(request, request.query.get("key-marker", ""), markers=True)
    found: _ITEMS = []
    for key in page.keys(bucket):  # a page ends between keys, never between the versions of one
        for at, version in enumerate(bucket.versions(key)):
            item: _ITEMS = [
                ("Key", page.text(key)),
                ("VersionId", version.version_id),
                ("IsLatest", str(at == 0).lower()),
                ("LastModified", _time(version.modified)),
            ]
            if not version.marker:
                item += [("ETag", f'"{version.etag}"'), ("Size", str(len(version.data))), ("StorageClass", "STANDARD")]
            found.append(("DeleteMarker" if version.marker else "Version", item))
    head: _ITEMS = [("Name", bucket.name), ("Prefix", page.text(page.prefix)), ("MaxKeys", str(page.most))]
    if page.encoded:
        head.append(("EncodingType", "url"))
    if page.truncated:
        head.append(("NextKeyMarker", page.text(page.last)))
    head.append(("IsTruncated", str(page.truncated).lower()))
    folders: _ITEMS = [("CommonPrefixes", [("Prefix", page.text(folder))]) for folder in page.folders]
    return xml_answer("ListVersionsResult", head + found + folders)


def _list_uploads(bucket: Bucket) -> Answer:
    uploads: _ITEMS = [
        ("Upload", [("Key", upload.key), ("UploadId", upload_id), ("Initiated", _time(upload.started))])
        for upload_id, upload in sorted(bucket.uploads.items(), key=lambda item: (item[1].key, item[0]))
    ]
    return xml_answer("ListMultipartUploadsResult", [("Bucket", bucket.name), ("IsTruncated", "false"), *uploads])


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")

"""A bucket in memory, for tests of what is read and written and not of S3."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from unittest.mock import Mock

from pipelines.archive.bucket import Bucket, Listed
from pipelines.archive.errors import KeyMissing


def a_bucket() -> Mock:
    """Return a bucket that has nothing but what was put there."""
    objects: dict[str, bytes] = {}

    def get(key: str) -> bytes:
        if key not in objects:
            raise KeyMissing(key)
        return objects[key]

    def listed(start: str, after: str = "") -> Iterator[tuple[str, Listed]]:
        for key in sorted(key for key in objects if key.startswith(start) and key > after):
            yield key, Listed(len(objects[key]), hashlib.sha256(objects[key]).hexdigest())

    bucket = Mock(spec=Bucket, prefix="")
    bucket.name = "archive"
    bucket.list_keys.side_effect = listed
    bucket.get_bytes.side_effect = get
    bucket.read_range.side_effect = lambda key, start, end, _size: get(key)[start:end]
    bucket.put.side_effect = lambda key, body, **_: objects.update({key: body})
    return bucket

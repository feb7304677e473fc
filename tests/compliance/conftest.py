"""A bucket of its own for each test, in memory: these tests are of what is stored, and tests/archive of S3."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, cast

import pytest

from pipelines.archive.bucket import Bucket
from tests.archive.conftest import NAME
from tests.memory_s3 import MemoryS3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture
def bucket() -> Bucket:
    s3 = MemoryS3()
    s3.create_bucket(Bucket=NAME)
    return Bucket(cast("S3Client", s3), NAME, f"t-{uuid.uuid4().hex}/")

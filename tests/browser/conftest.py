"""A page with calls over a bucket of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.archive.bucket import Bucket
from tests.browser.site import Site
from tests.compliance.conftest import _credentials, bucket, s3, s3_server  # noqa: F401 - fixtures


@pytest.fixture
def site(bucket: Bucket, tmp_path: Path) -> Site:  # noqa: F811 - as above
    return Site(bucket, tmp_path)

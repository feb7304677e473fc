"""A page with calls over a bucket of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.archive.bucket import Bucket
from pipelines.browser import sign_in
from tests.browser.site import HASHER, Site
from tests.compliance.conftest import bucket  # noqa: F401 - a fixture


@pytest.fixture
def site(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:  # noqa: F811 - as above
    # A name that nobody has costs as little as the others here, and not 64 MiB.
    monkeypatch.setattr(sign_in, "PasswordHasher", lambda: HASHER)
    return Site(bucket, tmp_path)

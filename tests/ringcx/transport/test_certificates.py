"""Which authorities are trusted, and what a certificate that is not accepted ends in."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.ringcx.errors import ConnectionNotAllowed
from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.limits.limiter import RateLimiter
from tests.ringcx.transport.conftest import WAV, fetched


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"])
def test_a_private_authority_is_trusted_where_the_environment_names_it(
    client: SourceClient, tls: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    port = tls()
    named = tmp_path / "ca.pem"
    if variable == "SSL_CERT_DIR":
        hashed = subprocess.run(
            ["openssl", "x509", "-hash", "-noout", "-in", named], capture_output=True, text=True, check=True
        ).stdout.strip()
        named = tmp_path / "authorities"
        named.mkdir()
        shutil.copy(tmp_path / "ca.pem", named / f"{hashed}.0")
    monkeypatch.setenv(variable, str(named))
    assert fetched(client, f"https://localhost:{port}/?file=a") == WAV


@pytest.mark.parametrize(
    ("name", "ends", "trusted", "problem"),
    [
        ("localhost", None, False, "unable to get local issuer certificate"),
        ("elsewhere.example", None, True, "not valid for 'localhost'"),
        ("localhost", datetime.now(UTC) - timedelta(hours=1), True, "certificate has expired"),
    ],
)
def test_a_certificate_that_is_not_accepted_ends_with_its_problem_after_one_try(  # noqa: PLR0917 - fixtures
    tls: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    ends: datetime | None,
    trusted: bool,
    problem: str,
) -> None:
    port, slept = tls(name, ends=ends), list[float]()
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    limiter = RateLimiter(tmp_path / "limits")
    with (
        SourceClient(limiter=limiter, limits={}, sleep=slept.append) as client,
        pytest.raises(ConnectionNotAllowed, match=f"certificate of localhost .*{problem}.*SSL_CERT_FILE"),
    ):
        fetched(client, f"https://localhost:{port}/?file=a")
    limiter.close()
    assert slept == []


def test_authorities_that_cannot_be_read_are_named_with_their_variable(
    client: SourceClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    with pytest.raises(ConnectionNotAllowed, match=r"SSL_CERT_FILE names .*missing\.pem"):
        fetched(client, "https://localhost:1/?file=a")

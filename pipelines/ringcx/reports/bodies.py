"""Send one POST to the source and save its answer in a file, whole or not at all.

`requests.py` and `interactions.py` say what is requested, `tables.py` reads the bytes.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from pipelines.ringcx.errors import BodyBroken, CredentialsRefused, ReportInvalid, SourceError, SourceRefused, shown_url
from pipelines.ringcx.http.client import (
    BombError,
    SourceClient,
    is_framed,
    raise_if_account_unknown,
    start_of,
    unpacked,
)

MAX_BYTES: Final = 8 << 30
MAX_SECONDS: Final = 3600.0
_PREFIX: Final = "ringcx-answers-"
_JUST_MADE_S: Final = 60  # between being made and being locked
_CREDENTIALS: Final = "RINGCX_API_TOKEN, RINGCX_USERNAME and RINGCX_PASSWORD, or RINGCENTRAL_JWT"


@dataclass(frozen=True, slots=True)
class Advice:
    """What an error's sentence asks a person to check: the right that is needed, the settings that make the address,
    and what to request when the answer is too large.
    """

    right: str
    address: str
    smaller: str


@dataclass(frozen=True, slots=True)
class PulledBody:
    """An answer in a file.

    Attributes:
        path: the file.
        size: bytes.
        sha256: of the bytes, in hexadecimal.
        framed: whether HTTP said where the body ends. If not, a connection that broke looks like the end.
    """

    path: Path
    size: int
    sha256: str
    framed: bool


def pull_body(
    client: SourceClient,
    url: str,
    *,
    limit: str,
    account_id: str,
    auth: httpx.Auth,
    request: dict[str, object],
    advice: Advice,
    into: Path,
) -> PulledBody:
    """Send `request` as JSON, and save the answer in `into`: replaced if it exists, gone if the pull fails.

    Raises:
        CredentialsRefused: 401 or 403.
        AccountUnknown: the source does not know the RingCentral account.
        SourceRefused: another status than 2xx that another try does not change.
        SourceUnavailable: no answer until the client's tries were used up.
        ConnectionNotAllowed: a certificate, a proxy or a setting does not allow the connection.
        ReportInvalid: the answer broke off each time, is longer or slower than the limits above, unpacks to hundreds of
            times its size, or is a 2xx without a body.
    """

    def attempt() -> PulledBody:
        with client.stream(
            "POST",
            url,
            limit=limit,
            account_id=account_id,
            auth=auth,
            json=request,
            headers={"Accept-Encoding": "gzip"},
        ) as response:
            if response.status_code != 200:
                raise _refusal(response, auth, advice)
            return _save(client, response, into)

    try:
        return client.retry(attempt)
    except BodyBroken:
        into.unlink(missing_ok=True)
        raise ReportInvalid(
            f"POST {shown_url(url)} broke off each time while the report was read; run the date again,"
            f" {advice.smaller}."
        ) from None
    except BaseException:  # an interrupt too: half a report must not be left behind
        into.unlink(missing_ok=True)
        raise


def _refusal(response: httpx.Response, auth: httpx.Auth, advice: Advice) -> SourceError:
    status, request = response.status_code, f"POST {shown_url(response.request.url)}"
    raise_if_account_unknown(response, start_of(response))
    if status in {401, 403}:
        variables = ", ".join(getattr(auth, "variables", ())) or _CREDENTIALS
        return CredentialsRefused(
            f"{request} was refused with HTTP {status}; check {variables}, and that {advice.right}.", status=status
        )
    if status < 300:
        return ReportInvalid(f"{request} was answered with HTTP {status}, which carries no report; run the date again.")
    return SourceRefused(
        f"{request} was refused with HTTP {status}, which another try does not change; check {advice.address}.",
        status=status,
    )


def _save(client: SourceClient, response: httpx.Response, into: Path) -> PulledBody:
    request = f"POST {shown_url(response.request.url)}"
    digest = hashlib.sha256()
    size = 0
    started = time.monotonic()

    def check() -> None:
        client.check_stop()
        if size > MAX_BYTES:
            raise ReportInvalid(f"{request} sent more than {MAX_BYTES >> 20} MiB; ask for a shorter period.")
        if time.monotonic() - started > MAX_SECONDS:
            raise ReportInvalid(
                f"{request} was still sending after {MAX_SECONDS:.0f} s; run the date again when the source is faster."
            )

    try:
        with into.open("wb") as file:
            for block in unpacked(response, check):
                size += len(block)
                check()
                digest.update(block)
                file.write(block)
    except BombError:
        raise ReportInvalid(
            f"{request} sent a body that unpacks to hundreds of times its size, as no report does; run the date again."
        ) from None
    return PulledBody(path=into, size=size, sha256=digest.hexdigest(), framed=is_framed(response))


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder for answers and remove it at the end, as they hold personal data.

    Folders that killed processes left behind are removed too: a folder is locked while it is in use, and the system
    releases the lock of a process however it ends.
    """
    _remove_leftovers()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        lock = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(lock)


def _remove_leftovers() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            old = time.time() - folder.stat().st_mtime > _JUST_MADE_S
            lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # gone meanwhile, or another user's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if old:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use
            continue
        finally:
            os.close(lock)

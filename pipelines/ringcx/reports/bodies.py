"""Send one POST to the source and read the report that it answers."""

import tempfile
from dataclasses import dataclass
from typing import Final

import httpx
import pyarrow as pa

from pipelines.ringcx.errors import BodyBroken, CredentialsRefused, ReportInvalid, SourceError, SourceRefused, shown_url
from pipelines.ringcx.http.client import BombError, Received, SourceClient, TooSlowError, explanation_of
from pipelines.ringcx.reports.columns import ReportName
from pipelines.ringcx.reports.tables import parse_report

MAX_BYTES: Final = 8 << 30
MAX_SECONDS: Final = 3600.0
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
class Answer:
    """A whole report: its rows, as `parse_report` gives them, and its size in bytes and SHA-256 (hex) as it was sent,
    out of its gzip.
    """

    rows: pa.Table
    size: int
    sha256: str


def pull_body(
    client: SourceClient,
    url: str,
    report: ReportName,
    *,
    limit: str,
    account_id: str,
    auth: httpx.Auth,
    request: dict[str, object],
    advice: Advice,
) -> Answer:
    """Send `request` as JSON, and read the answer.

    The answer holds personal data, so it is kept in a file without a name: a killed process leaves nothing behind.

    Raises:
        CredentialsRefused: 401 or 403.
        AccountUnknown: the source does not know the RingCentral account.
        SourceRefused: another status than 2xx that another try does not change.
        SourceUnavailable: no answer until the attempts were used up.
        ConnectionNotAllowed: a certificate, a proxy or a setting does not allow the connection.
        ReportInvalid: the answer broke off each time, is longer or slower than the limits above, unpacks to hundreds of
            times its size, is a 2xx without a body, or is not the report that was asked for.
    """

    def attempt() -> Received:
        file.seek(0)
        file.truncate()
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
            received = client.receive(response, file, max_bytes=MAX_BYTES, max_seconds=MAX_SECONDS)
            file.flush()
            return received

    with tempfile.TemporaryFile() as file:
        try:
            received = client.retry(attempt)
        except BodyBroken:
            problem = f"broke off each time while the report was read; run the date again, {advice.smaller}"
        except BombError:
            problem = (
                f"sent more than {MAX_BYTES >> 20} MiB, or a body that unpacks to hundreds of times its size, as no"
                f" report does; run the date again, {advice.smaller}"
            )
        except TooSlowError:
            problem = f"was still sending after {MAX_SECONDS:.0f} s; run the date again when the source is faster"
        else:
            return Answer(parse_report(report, file, framed=received.framed), received.size, received.sha256)
    raise ReportInvalid(f"POST {shown_url(url)} {problem}.")


def _refusal(response: httpx.Response, auth: httpx.Auth, advice: Advice) -> SourceError:
    status, request = response.status_code, f"POST {shown_url(response.request.url)}"
    explanation_of(response)  # raises AccountUnknown
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

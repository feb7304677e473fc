"""Request interaction metadata from the current API: the windows of a period, the request, the answer as a file.

`tables.py` reads the bytes. Windows are requested in UTC, so that no hour is ambiguous or missing. A row belongs to the
window in which its segment ended; the caller knows when a window may be requested.
"""

from collections.abc import Iterator
from datetime import UTC, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx

from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.reports.bodies import USUAL, Advice, Asked, BodyLimits, PulledBody, pull_body
from pipelines.ringcx.reports.requests import Period

METADATA_LIMIT: Final = "metadata"
_ADVICE: Final = Advice(
    right="this user has the WEM access right for the sub-account, which interaction metadata needs",
    address="RINGCX_CURRENT_URL, RINGCX_RC_ACCOUNT_ID, RINGCX_ACCOUNT_IDS and RINGCX_METADATA_WINDOW",
    smaller="or with a shorter RINGCX_METADATA_WINDOW",
)


def windows(period: Period, seconds: int) -> Iterator[Period]:
    """The windows of `seconds` that cover a period from its start, without gap or overlap; the last may be shorter."""
    start, length = period.start.astimezone(UTC), timedelta(seconds=seconds)
    while start < period.end:
        yield Period(start, min(start + length, period.end.astimezone(UTC)))
        start += length


def interaction_request(window: Period) -> dict[str, object]:
    """The body that asks for the segments that ended in a window, which runs forward from `segmentEndTime`.

    Raises:
        ValueError: the window does not begin and end at whole seconds.
    """
    length = window.end - window.start
    if window.start.microsecond or length % timedelta(seconds=1):
        raise ValueError("A window begins and ends at whole seconds.")
    return {
        "segmentEndTime": window.start.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "timeInterval": length // timedelta(seconds=1),
        "timeZone": "UTC",
    }


def account_path(rc_account_id: str, account_id: str, version: str = "v1") -> str:
    """Return the path, below the API's base, of everything of a sub-account."""
    return (
        f"/cx/integration/{version}/accounts/{quote(rc_account_id, safe='')}/sub-accounts/{quote(account_id, safe='')}"
    )


def pull_interactions(
    client: SourceClient,
    *,
    base_url: str,
    rc_account_id: str,
    auth: httpx.Auth,
    account_id: str,
    window: Period,
    into: Path,
    version: str = "v1",
    limits: BodyLimits = USUAL,
) -> PulledBody:
    """Fetch the interaction metadata of one window into a file.

    `window` must be over, and at most as long as the source takes (RINGCX_METADATA_WINDOW). `version` is of this
    part of the API (RINGCX_METADATA_VERSION); recordings are v1 in any case.

    Raises: as `bodies.pull_body`.
    """
    url = f"{base_url.rstrip('/')}{account_path(rc_account_id, account_id, version)}/interaction-metadata"
    asked = Asked(url, METADATA_LIMIT, account_id, auth, interaction_request(window), _ADVICE)
    return pull_body(client, asked, into=into, limits=limits)

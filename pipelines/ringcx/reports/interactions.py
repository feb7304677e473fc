"""The current API: request interaction metadata, and make the addresses of segments' recordings.

Windows are requested in UTC, so that no hour is ambiguous or missing. A row belongs to the window in which its segment
ended. Addresses are made from ids and settings, never from a row.

Requests go to `POST {base}/cx/integration/{version}/accounts/{rcAccountId}/sub-accounts/{id}/interaction-metadata`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Final
from urllib.parse import quote

import httpx

from pipelines.ringcx.errors import LinkRefused
from pipelines.ringcx.http.client import SourceClient, origin_of
from pipelines.ringcx.reports.bodies import Advice, Answer, pull_body
from pipelines.ringcx.reports.requests import Period

DOWNLOAD_LIMIT: Final = "download"
_MAX_ID_LENGTH: Final = 512  # those of the source have under 70 characters
_RECORDING_PATH: Final = re.compile(r"/recordings/dialogs/([^/?#]+)/segments/([^/?#]+)", re.ASCII)
_ADVICE: Final = Advice(
    right="this user has the WEM access right for the sub-account, which interaction metadata needs",
    address="RINGCX_CURRENT_URL, RINGCX_RC_ACCOUNT_ID, RINGCX_ACCOUNT_IDS and RINGCX_METADATA_WINDOW",
    smaller="or with a shorter RINGCX_METADATA_WINDOW",
)


def windows(period: Period, seconds: int) -> Iterator[Period]:
    """Yield windows of `seconds` that cover a period from its start without gap or overlap; the last may be shorter."""
    start, length = period.start.astimezone(UTC), timedelta(seconds=seconds)
    while start < period.end:
        yield Period(start, min(start + length, period.end.astimezone(UTC)))
        start += length


def interaction_request(window: Period) -> dict[str, object]:
    """Return the body that requests the segments that ended in a window of whole seconds, which runs forward from
    `segmentEndTime`.
    """
    return {
        "segmentEndTime": window.start.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "timeInterval": (window.end - window.start) // timedelta(seconds=1),
        "timeZone": "UTC",
    }


@dataclass(frozen=True, slots=True)
class InteractionSource:
    """Where interaction metadata comes from: a client, the API's base address, the RingCentral account, the log-in.

    `version` is of this part of the API (RINGCX_METADATA_VERSION); recordings are v1 in any case.
    """

    client: SourceClient
    base_url: str
    rc_account_id: str
    auth: httpx.Auth
    version: str = "v1"

    def pull(self, account_id: str, window: Period) -> Answer:
        """Fetch the interaction metadata of a window, which is over and as long as RINGCX_METADATA_WINDOW at the most.

        Raises: as `bodies.pull_body`.
        """
        return pull_body(
            self.client,
            f"{_account_url(self.base_url, self.rc_account_id, account_id, self.version)}/interaction-metadata",
            "interaction_metadata",
            limit="metadata",
            account_id=account_id,
            auth=self.auth,
            request=interaction_request(window),
            advice=_ADVICE,
        )


def segment_recording_id(account_id: str, dialog_id: str, segment_id: str) -> str:
    """Return `<account>/<dialogId>/<segmentId>`, the two ids percent-encoded except letters, digits and `-._~`.

    Raises:
        LinkRefused: `no_segment` (an id is empty), `malformed` (it cannot stand in an address).
    """
    return f"{account_id}/{_part(dialog_id)}/{_part(segment_id)}"


@dataclass(frozen=True, slots=True)
class SegmentLinks:
    """Addresses of recordings of a RingCentral account in the current API, at `base_url` (`RINGCX_CURRENT_URL`)."""

    base_url: str
    rc_account_id: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port, which the settings name."""
        return origin_of(self.base_url)

    def link(self, account_id: str, dialog_id: str, segment_id: str) -> str:
        """Return the address of a segment's recording; LinkRefused as `segment_recording_id`."""
        account_url = _account_url(self.base_url, self.rc_account_id, account_id)
        return f"{account_url}/recordings/dialogs/{_part(dialog_id)}/segments/{_part(segment_id)}"

    def owns(self, link: str, account_id: str) -> bool:
        """Return whether `link` is the address of a recording of this sub-account under the present settings."""
        account_url = _account_url(self.base_url, self.rc_account_id, account_id)
        ids = _RECORDING_PATH.fullmatch(link, len(account_url)) if link.startswith(account_url) else None
        return ids is not None and not {ids[1], ids[2]} & {".", ".."}


def _account_url(base_url: str, rc_account_id: str, account_id: str, version: str = "v1") -> str:
    account, sub_account = quote(rc_account_id, safe=""), quote(account_id, safe="")
    return f"{base_url.rstrip('/')}/cx/integration/{version}/accounts/{account}/sub-accounts/{sub_account}"


def is_segment_link(link: str) -> bool:
    """Return whether an address has the form of a segment recording's, at any host."""
    return _RECORDING_PATH.search(link) is not None


def _part(text: str) -> str:
    if not text:
        raise LinkRefused("no_segment")
    try:
        part = quote(text, safe="")
    except UnicodeEncodeError:
        raise LinkRefused("malformed") from None
    if len(part) > _MAX_ID_LENGTH or part in {".", ".."}:
        raise LinkRefused("malformed")
    return part

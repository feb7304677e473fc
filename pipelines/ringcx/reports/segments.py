"""Where the current API gives the recording of a segment: its address, and whether an address is such a one.

These addresses are made here from ids and settings, never taken from a row. What is sent there is `media.py`'s
business.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from pipelines.ringcx.errors import LinkRefused
from pipelines.ringcx.http.client import origin_of
from pipelines.ringcx.reports.interactions import account_path

DOWNLOAD_LIMIT: Final = "download"
_LONGEST: Final = 512  # of one id; those of the source have under 70 characters
_PLACE: Final = re.compile(r"/recordings/dialogs/([^/?#]+)/segments/([^/?#]+)", re.ASCII)


def segment_recording_id(account_id: str, dialog_id: str, segment_id: str) -> str:
    """`<account>/<dialogId>/<segmentId>`, what is not a letter, digit or `-._~` of the two ids percent-encoded.

    Raises:
        LinkRefused: `no_segment` (one of the ids is empty), `malformed` (it cannot stand in an address).
    """
    return f"{account_id}/{_part(dialog_id)}/{_part(segment_id)}"


@dataclass(frozen=True, slots=True)
class SegmentLinks:
    """The recordings of the current API at `base_url` (`RINGCX_CURRENT_URL`) of a RingCentral account."""

    base_url: str
    rc_account_id: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port, which the settings name."""
        return origin_of(self.base_url)

    def link(self, account_id: str, dialog_id: str, segment_id: str) -> str:
        """The address of a segment's recording.

        Raises:
            LinkRefused: as `segment_recording_id`.
        """
        return f"{self.dialogs(account_id)}{_part(dialog_id)}/segments/{_part(segment_id)}"

    def dialogs(self, account_id: str) -> str:
        """What the addresses of a sub-account's recordings begin with."""
        return f"{self._below(account_id)}/recordings/dialogs/"

    def owns(self, link: str, account_id: str) -> bool:
        """Whether `link` is the address of a recording of this sub-account under the present settings."""
        below = self._below(account_id)
        place = _PLACE.fullmatch(link, len(below)) if link.startswith(f"{below}/") else None
        return place is not None and not {place[1], place[2]} & {".", ".."}

    def _below(self, account_id: str) -> str:
        return f"{self.base_url.rstrip('/')}{account_path(self.rc_account_id, account_id)}"


def is_segment_link(link: str) -> bool:
    """Whether an address has the form of such a recording's, at whatever host."""
    return _PLACE.search(link) is not None


def _part(text: str) -> str:
    if not text:
        raise LinkRefused("no_segment")
    try:
        part = quote(text, safe="")
    except UnicodeEncodeError:
        raise LinkRefused("malformed") from None
    if len(part) > _LONGEST or part in {".", ".."}:
        raise LinkRefused("malformed")
    return part

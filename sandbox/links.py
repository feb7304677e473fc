"""Links to recordings, in the vendor's form, sound or hostile; and what a media request asks for."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from sandbox.calls import Recording
from sandbox.faults import Faults

MEDIA_PATH = "/api/v1/calls/recordings"
_STORES = {"mono": ("c02-recordings", "us-east-1"), "stereo": ("aws46-recordings", "us-west-2")}


@dataclass(frozen=True, slots=True)
class LinkMaker:
    """Writes links.

    Attributes:
        base_url: The sandbox as its clients reach it, without a slash at the end.
        evil_host: Where hostile links point, `host` or `host:port`.
    """

    base_url: str
    evil_host: str

    def link(self, recording: Recording, faults: Faults, *, variant: int = 0) -> str:
        """The link of a recording as a row shows it; other variants name the same recording in another form."""
        base = self.base_url
        blank = ""
        for fault in faults.link_fault(recording.path):
            if fault == "link_evil_host":
                base = f"http://{self.evil_host}"
            elif fault == "link_credentials":
                base = self.base_url.replace("://", "://root:toor@", 1)
            elif fault == "link_http":
                base = "http://c02-recordings.virtualacd.biz"
            elif fault == "link_stray_blanks":
                blank = " "
        bucket, region = _STORES[recording.layout]
        account, file = f"accountId={recording.account_id}{blank}", f"file={blank}{recording.path}"
        place = f"bucket={bucket}&{blank}region={region}"
        if variant % 2:
            return f"{base}{MEDIA_PATH}?{file}&v=1&compliance=true&{place}&{account}"
        slash = "/" if recording.layout == "mono" else ""
        compliance = "false" if recording.layout == "mono" else "true"
        return f"{base}{MEDIA_PATH}{slash}?v=1&{account}&{place}&compliance={compliance}&{file}"

    def redirect_target(self, url: str, *, other_host: bool) -> str:
        """Where a redirect of this media URL leads: a path that serves the same file."""
        base = f"http://{self.evil_host}" if other_host else self.base_url
        return f"{base}/store/recordings?{urlsplit(url).query}"


def asked_file(query: str) -> str | None:
    """The `file` of a media request; None without one, or with blanks in it: the source takes the query literally."""
    values = parse_qs(query, keep_blank_values=True).get("file", [""])
    return values[0] if values[0] and not any(character.isspace() for character in values[0]) else None


def asked_account(query: str) -> str:
    """The `accountId` of a media request, empty if there is none."""
    return parse_qs(query).get("accountId", [""])[0]

"""The source's times and durations to aware UTC datetimes and seconds.

A field that cannot be read is `None`, never an error: a recording matters more than another column of its row. Which
field is the start of what is not decided here.
"""

import math
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

_US: Final = re.compile(r"(\d{2})/(\d{2})/(\d{4}) (\d{2}:\d{2}:\d{2})", re.ASCII)
_ISO: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:?\d{2})?", re.ASCII | re.IGNORECASE
)
_ZONED: Final = re.compile(r"(Z|:\d{2}(?:\.\d+)?[+-]\d{2}:?\d{2})$", re.ASCII | re.IGNORECASE)
_EPOCH_MS: Final = re.compile(r"\d{12,14}", re.ASCII)
_UII: Final = re.compile(r"'?(\d{14})", re.ASCII)
_HMS: Final = re.compile(r"(\d{1,9}):([0-5]\d):([0-5]\d(?:\.\d+)?)", re.ASCII)
_SECONDS: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_UII_ZONE: Final = "America/New_York"


@lru_cache(maxsize=1 << 14)  # the rows of a day share many
def parse_report_time(text: str | None) -> datetime | None:
    """Read `MM/DD/YYYY HH:MM:SS`, ISO 8601 with or without zone, or `YYYY-MM-DD HH:MM:SS`; no zone is UTC, as asked."""
    stripped = (text or "").strip()
    if "/" in stripped and (us := _US.fullmatch(stripped)):
        month, day, year, clock = us.groups()
        return _utc(f"{year}-{month}-{day}T{clock}")
    return _utc(stripped) if _ISO.fullmatch(stripped) else None


def parse_moment(text: str | None) -> datetime | None:
    """Read a time of the current API: ISO 8601, or milliseconds since 1970, after which its columns are named."""
    stripped = (text or "").strip()
    if _EPOCH_MS.fullmatch(stripped):
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(stripped))
    return parse_report_time(stripped)


def parse_local_time(text: str | None, zone: ZoneInfo) -> datetime | None:
    """Read what `parse_report_time` reads, where a time without a zone is one of `zone`."""
    read = parse_report_time(text)
    if read is None or _ZONED.search((text or "").strip()):
        return read
    try:
        return read.replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def uii_time(uii: str | None) -> datetime | None:
    """The call's time that a UII begins with: 14 digits, US/Eastern whatever the report's zone.

    Of the hour that comes twice in autumn the first is meant; the UII does not tell.
    """
    found = _UII.match((uii or "").strip())
    if not found:
        return None
    try:
        local = datetime.fromisoformat(f"{found[1][:8]}T{found[1][8:]}").replace(tzinfo=ZoneInfo(_UII_ZONE))
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=1 << 14)
def parse_hms(text: str | None) -> float | None:
    """Seconds of `HH:MM:SS` (hours may pass 24) or of a plain number of seconds."""
    stripped = (text or "").strip()
    if hms := _HMS.fullmatch(stripped):
        return int(hms[1]) * 3600 + int(hms[2]) * 60 + float(hms[3])
    seconds = float(stripped) if _SECONDS.fullmatch(stripped) else math.inf
    return seconds if math.isfinite(seconds) else None


def parse_ms(text: str | None) -> float | None:
    """Seconds of a number of milliseconds."""
    seconds = parse_hms(text) if ":" not in (text or "") else None
    return None if seconds is None else seconds / 1000


def _utc(iso: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(iso.upper())
        return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None

"""The source's times and durations as aware UTC datetimes and seconds.

A field that cannot be read becomes `None`, never an error: a recording matters more than another column of its row.
"""

import math
import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

_US: Final = re.compile(r"(\d{2})/(\d{2})/(\d{4}) (\d{2}:\d{2}:\d{2})", re.ASCII)
_ISO: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:?\d{2})?", re.ASCII | re.IGNORECASE
)
_EPOCH_MS: Final = re.compile(r"\d{12,14}", re.ASCII)
_UII: Final = re.compile(r"'?(\d{8})(\d{6})", re.ASCII)
_HMS: Final = re.compile(r"(\d{1,9}):([0-5]\d):([0-5]\d(?:\.\d+)?)", re.ASCII)
_SECONDS: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_UII_ZONE: Final = "America/New_York"


@lru_cache(maxsize=1 << 14)  # the rows of a day share many
def parse_report_time(text: str | None, zone: tzinfo = UTC) -> datetime | None:
    """Return the time in `MM/DD/YYYY HH:MM:SS` or ISO 8601, with `T` or a blank; without a zone, it is in `zone`."""
    stripped = (text or "").strip()
    if us := _US.fullmatch(stripped):
        stripped = f"{us[3]}-{us[1]}-{us[2]}T{us[4]}"
    return _utc(stripped.upper(), zone) if _ISO.fullmatch(stripped) else None


def parse_moment(text: str | None) -> datetime | None:
    """Return a time of the current API: ISO 8601, or the milliseconds since 1970 that its column names suggest."""
    stripped = (text or "").strip()
    if _EPOCH_MS.fullmatch(stripped):
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(stripped))
    return parse_report_time(stripped)


def uii_time(uii: str | None) -> datetime | None:
    """Return the call's time with which a UII begins, in US/Eastern; of the hour that occurs twice, the first."""
    digits = _UII.match((uii or "").strip())
    return _utc(f"{digits[1]}T{digits[2]}", ZoneInfo(_UII_ZONE)) if digits else None


@lru_cache(maxsize=1 << 14)
def parse_hms(text: str | None) -> float | None:
    """Return the seconds in `HH:MM:SS` (hours may exceed 24) or in a plain number of seconds."""
    stripped = (text or "").strip()
    if hms := _HMS.fullmatch(stripped):
        return int(hms[1]) * 3600 + int(hms[2]) * 60 + float(hms[3])
    seconds = float(stripped) if _SECONDS.fullmatch(stripped) else math.inf
    return seconds if math.isfinite(seconds) else None


def parse_ms(text: str | None) -> float | None:
    """Return milliseconds as seconds."""
    seconds = parse_hms(text) if ":" not in (text or "") else None
    return None if seconds is None else seconds / 1000


def _utc(iso: str, zone: tzinfo) -> datetime | None:
    try:
        time = datetime.fromisoformat(iso)
        return (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None

"""What is said of one thing that was tried. No sentence holds a secret, or a value from a report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

Verdict = Literal["ok", "warning", "failed", "not tried"]

# S3 refuses requests that are a quarter of an hour off; long before that, dates and permits are wrong.
SKEW_FAILS_S = 300.0
SKEW_WARNS_S = 60.0


@dataclass(frozen=True, slots=True)
class Line:
    """One thing, its verdict, and one sentence: what was found, or what to do."""

    subject: str
    verdict: Verdict
    sentence: str


def ok(subject: str, sentence: str) -> Line:
    """It works."""
    return Line(subject, "ok", sentence)


def warning(subject: str, sentence: str) -> Line:
    """It works, and somebody should look at it."""
    return Line(subject, "warning", sentence)


def failed(subject: str, error: Exception | str) -> Line:
    """It does not work; an error's own sentence says what to do."""
    return Line(subject, "failed", f"{str(error).rstrip('.')}.")


def not_tried(subject: str, why: str) -> Line:
    """Something that it needs does not work."""
    return Line(subject, "not tried", why)


def clock_line(subject: str, date_header: str | None, ours: datetime, *, fails: bool) -> Line:
    """Our clock against a `Date` header; `fails`: whether five minutes are too much to work with."""
    try:
        theirs = parsedate_to_datetime(date_header or "")
    except ValueError:
        return warning(subject, "the answer bears no date, so the clock could not be compared.")
    theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
    skew_s = (ours - theirs).total_seconds()
    said = f"this machine's clock is {abs(skew_s):.0f} s {'ahead' if skew_s > 0 else 'behind'}"
    if abs(skew_s) <= SKEW_WARNS_S:
        return ok(subject, f"{said}.")
    if abs(skew_s) > SKEW_FAILS_S and fails:
        return failed(subject, f"{said}; set it right (NTP): requests with such a date are refused")
    return warning(subject, f"{said}; set it right (NTP): periods of reports and times of attempts follow it.")

"""The result of a connection check. No sentence holds a secret, or a value from a report."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from pipelines.errors import ExpectedError
from pipelines.ringcx.errors import LinkRefused, SourceUnavailable

Grade = Literal["ok", "warning", "failed", "not tried"]
Graded = tuple[Grade, str]
"""A grade and one sentence: what was found, or what to do."""

# S3 refuses requests that are a quarter of an hour off; long before that, dates and permits are wrong.
SKEW_FAILS_S = 300.0
SKEW_WARNS_S = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a check of `subject`."""

    subject: str
    grade: Grade
    sentence: str


def check(subject: str, test: Callable[[], Graded], *, not_tried: str = "") -> Result:
    """Run one check, or give the reason why it is `not_tried`. An expected error is a failure with its own remedy."""
    grade: Grade = "not tried"
    try:
        grade, sentence = (grade, not_tried) if not_tried else test()
    except SourceUnavailable as error:
        network = "Check the machine's network: name server, firewall, outbound HTTPS, HTTPS_PROXY"
        grade, sentence = "failed", f"{error} {network}"
    except (ExpectedError, LinkRefused, OSError) as error:
        grade, sentence = "failed", str(error)
    return Result(subject, grade, f"{sentence.rstrip('.')}.")


def compare_clocks(date_header: str, ours: datetime, *, fails: bool) -> Graded:
    """Compare this machine's clock with a `Date` header. `fails`: more than five minutes' difference is a failure."""
    try:
        theirs = parsedate_to_datetime(date_header)
    except ValueError:
        return "warning", "the response has no date, so the clocks could not be compared"
    theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
    skew_s = (ours - theirs).total_seconds()
    found = f"this machine's clock is {abs(skew_s):.0f} s {'ahead' if skew_s > 0 else 'behind'}"
    if abs(skew_s) <= SKEW_WARNS_S:
        return "ok", found
    grade: Grade = "failed" if fails and abs(skew_s) > SKEW_FAILS_S else "warning"
    return grade, f"{found}; correct it (NTP): S3's answers, report periods and the times of attempts depend on it"

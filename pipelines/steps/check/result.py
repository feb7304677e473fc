"""A check's result, in words and figures that a compliance officer can read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import pandas as pd

from pipelines.wording import number

LISTED = 200
"""The greatest number of listed items; counts are exact, but the list is kept with each result."""


class Level(StrEnum):
    """`warning`: somebody should look. `error`: recordings are lost, late or unknown."""

    ok = "ok"
    warning = "warning"
    error = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The result of a check, without personal data.

    `verdict`: the date's, if the check gives one. `tables` have at most four short columns, `lists` at most `LISTED`
    rows. `totals`: of the whole archive, to plot over time; empty if the check did not cover all of it.
    """

    verdict: str = ""
    level: Level
    sentence: str
    counts: Mapping[str, int]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    lists: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    totals: Mapping[str, float] = field(default_factory=dict)


def examples(recordings: pd.DataFrame) -> pd.DataFrame:
    """Return the first `LISTED` recordings: the ledger's columns, and in `condition` what is wrong."""
    columns = ["recording_id", "condition", "status", "reason", "date", "attempts"]
    shown = recordings.head(LISTED)[columns].rename(columns={"recording_id": "recording", "status": "state"})
    shown = shown.assign(reason=shown["reason"].fillna(""), date=shown["date"].astype(str))
    if "next_attempt_at" in recordings:
        shown["next_attempt_utc"] = (
            pd.to_datetime(recordings["next_attempt_at"]).dt.strftime("%Y-%m-%d %H:%M").fillna("")
        )
    return shown


def problem_sentences(texts: Mapping[str, str], counts: Mapping[str, int], **facts: object) -> list[str]:
    """Return a sentence for each count above zero, from `what one does|what others do|the rest, with {facts}`."""
    sentences = []
    for name, text in texts.items():
        singular, plural, rest = text.split("|")
        if counts[name]:
            sentences.append(number(counts[name], singular, plural) + rest.format(**facts))
    return sentences

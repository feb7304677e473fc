"""The check that archived audio matches the report, by what the ledger recorded about it when it was archived."""

from datetime import date

import pandas as pd

from pipelines.archive.wav import duration_differs
from pipelines.ledger.store import Ledger
from pipelines.steps.check.result import CheckResult, Level, examples
from pipelines.steps.link.matching import AMBIGUOUS
from pipelines.steps.link.recordings_table import RecordingsTable
from pipelines.wording import number

# A header without audio is 44 bytes in a plain WAV.
_HEADER_BYTES = 44
_COLUMNS = [
    *("recording_id", "account_id", "uii", "layout", "status", "reason", "date", "attempts", "size", "sha256"),
    *("duration_s", "expected_duration_s", "warnings", "same_as"),
]
_FLAGS = {
    "duration_differs": ("differs in length from the report", "differ in length from the report"),
    "header_only": ("has a header but no audio", "have a header but no audio"),
    "silent_channel": ("has a silent channel", "have a silent channel"),
    "same_audio": ("has the same audio as another call's recording", "have the same audio as another call's recording"),
}
# Warnings that this check examines more closely, or that are not faults of the audio. All others are counted.
_NOT_COUNTED = ("duration_differs", "mono_segment", "codec_g711", AMBIGUOUS)


def audio_is_true(ledger: Ledger, day: date) -> CheckResult:
    """Compare the audio of the recordings dated `day` with the report."""
    known = RecordingsTable.of(ledger.current([day]).select(_COLUMNS).sort_by("recording_id"))
    wavs, rest = known.archived.to_pandas(), known.rest.to_pandas()
    flagged = _flagged(wavs, rest)
    by_flag = flagged.groupby("flag")["recording_id"].nunique()
    others = sorted(set(flagged["flag"]) - {*_FLAGS})
    counts = {
        "archived": len(wavs),
        **{flag: int(by_flag.get(flag, 0)) for flag in (*_FLAGS, *others)},
        "without_reported_duration": int(wavs["expected_duration_s"].isna().sum()),
    }
    if len(flagged):
        words = _FLAGS | {flag: (f"has the warning `{flag}`", f"have the warning `{flag}`") for flag in others}
        found = ", ".join(number(counts[flag], *words[flag]) for flag in words if counts[flag])
        sentence = f"Of the recordings of {day}, {found}. Listen to the samples: perhaps they do not contain the call."
    else:
        sentence = (
            f"{number(len(wavs), 'recording')} of {day}: none differs in length from the report, none is empty, and no "
            "channel is silent where five seconds or more were recorded."
        )
    return CheckResult(
        level=Level.warning if len(flagged) else Level.ok,
        sentence=sentence,
        counts=counts,
        lists={"sample": examples(flagged)},
    )


def _flagged(wavs: pd.DataFrame, rest: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each recording and possible fault (`flag`), with the details in `condition`."""
    condition = [
        f"duration_differs: {heard:.0f} s, reported {expected:.0f} s" if duration_differs(expected, heard) else ""
        for heard, expected in zip(_seconds_heard(wavs), wavs["expected_duration_s"], strict=True)
    ]
    wavs = wavs.assign(condition=condition)
    header_only = pd.concat(
        [wavs[(wavs["size"] <= _HEADER_BYTES) | (wavs["duration_s"] == 0)], rest[rest["reason"] == "header_only"]]
    ).sort_values("recording_id")
    calls = (wavs["account_id"] + " " + wavs["uii"].str.lower())[wavs["uii"] != ""].groupby(wavs["sha256"]).nunique()
    is_shared = wavs["sha256"].isin(calls[calls > 1].index) & ~wavs["recording_id"].isin(header_only["recording_id"])
    warned = wavs.explode("warnings").dropna(subset="warnings")
    warned = warned[~warned["warnings"].isin(_NOT_COUNTED)].sort_values("warnings", kind="stable")
    is_silent = warned["warnings"].str.contains("silent")
    warned = warned.assign(condition=warned["warnings"], flag=warned["warnings"].mask(is_silent, "silent_channel"))
    flagged = pd.concat(
        [
            wavs[wavs["condition"] != ""].assign(flag="duration_differs"),
            header_only.assign(flag="header_only", condition="header_only"),
            wavs[is_shared].sort_values("sha256").assign(flag="same_audio", condition="same_audio"),
            warned,
        ]
    )
    return flagged.drop_duplicates(["recording_id", "condition"])


def _seconds_heard(wavs: pd.DataFrame) -> pd.Series:
    """Return the seconds of each recording; for a mono one that was stopped and started again, those of all parts: the
    report gives the length of a call for mono and of a leg for stereo.
    """
    parts = wavs[(wavs["layout"] == "mono") & (wavs["uii"] != "") & wavs["duration_s"].notna()]
    return parts.groupby(["account_id", "uii"])["duration_s"].transform("sum").combine_first(wavs["duration_s"])

"""Check that archived audio is what the report says of it, by what the ledger says was heard when it was archived."""

from __future__ import annotations

from collections import defaultdict
from datetime import date

from pipelines.ledger.states import RecordingState
from pipelines.ledger.store import Ledger
from pipelines.steps.check.findings import SAMPLE, Finding, Level, examples
from pipelines.steps.fetch.attempt import duration_differs
from pipelines.steps.link.matching import AMBIGUOUS
from pipelines.steps.link.recordings_table import Recordings
from pipelines.wording import number

# A header without audio is 44 bytes in a plain WAV.
_HEADER_BYTES = 44
# Warnings that are judged here by more than their name, or are no fault of the audio. Every other one is counted.
_OWN = ("duration_differs", "header_only", "silent_channel")
_NOT_COUNTED = frozenset({"duration_differs", "mono_segment", AMBIGUOUS})


def audio_is_true(ledger: Ledger, day: date) -> Finding:
    """Compare what was received with what the report says of it: length, empty recordings, silent channels.

    Of the recordings dated `day`; one that its pull found and that is dated another day is judged there.
    """
    known = Recordings.of(ledger.current([day]))
    doubts, heard = _doubts(known)
    counts = {
        "archived": known.held.num_rows,
        **{doubt: len(ids) for doubt, ids in doubts.items()},
        "without_reported_duration": known.held["expected_duration_s"].null_count,
    }
    in_order = [(doubt, key) for doubt, ids in doubts.items() for key in ids][:SAMPLE]
    shown = known.states(key for _, key in in_order)
    flagged = [(_detail(doubt, shown[key], heard.get(key)), shown[key]) for doubt, key in in_order]
    if flagged:
        others = "".join(
            f", {number(len(ids), 'has', 'have')} the warning `{name}`"
            for name, ids in doubts.items()
            if name not in _OWN
        )
        sentence = (
            f"Of the recordings of {day}, {number(counts['duration_differs'], 'differs', 'differ')} in length from the "
            f"report, {number(counts['header_only'], 'has', 'have')} a header and no audio, "
            f"{number(counts['silent_channel'], 'has', 'have')} a silent channel{others}. "
            "Listen to the samples: they may not contain the call."
        )
    else:
        sentence = (
            f"{number(known.held.num_rows, 'recording')} of {day}: lengths agree with the report, none is empty, and "
            "none of five seconds and more has a silent channel."
        )
    return Finding(
        level=Level.doubtful if flagged else Level.good,
        sentence=sentence,
        counts=counts,
        tables={"sample": examples(flagged)} if flagged else {},
    )


def _doubts(known: Recordings) -> tuple[dict[str, list[str]], dict[str, float | None]]:
    """What may be wrong -> the ids of the recordings, sorted; and the seconds heard of those whose length differs."""
    ids: dict[str, set[str]] = {name: set() for name in _OWN}
    heard: dict[str, float | None] = {}
    parts = _parts(known)
    names = ("recording_id", "account_id", "uii", "layout", "size", "duration_s", "expected_duration_s", "warnings")
    for recording_id, account_id, uii, layout, size, lasts, expected, warnings in known.columns(*names):
        in_all = parts.get((account_id, uii), lasts) if layout == "mono" and lasts is not None else lasts
        if duration_differs(expected, in_all):
            ids["duration_differs"].add(recording_id)
            heard[recording_id] = in_all
        if size <= _HEADER_BYTES or lasts == 0:
            ids["header_only"].add(recording_id)
        for warning in set(warnings or ()) - _NOT_COUNTED:
            ids.setdefault("silent_channel" if "silent" in warning else warning, set()).add(recording_id)
    ids["header_only"] |= {key for key, one in known.others.items() if one.reason == "header_only"}
    return {doubt: sorted(found) for doubt, found in ids.items()}, heard


def _parts(known: Recordings) -> dict[tuple[str, str], float]:
    """Call -> the seconds of its mono recordings together: one stopped and started again comes in parts. The report
    gives the length of a call for mono and of a leg for stereo.
    """
    parts: defaultdict[tuple[str, str], float] = defaultdict(float)
    for account_id, uii, layout, lasts in known.columns("account_id", "uii", "layout", "duration_s"):
        if layout == "mono" and uii:
            parts[account_id, uii] += lasts or 0.0
    return dict(parts)


def _detail(doubt: str, state: RecordingState, heard: float | None) -> str:
    if doubt == "duration_differs":
        return f"{doubt}: {heard or 0:.0f} s, reported {state.expected_duration_s:.0f} s"
    if doubt == "silent_channel":
        return ", ".join(one for one in state.warnings if "silent" in one)
    return doubt

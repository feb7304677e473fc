"""`ringcx-archive verify` names ledger parts that were altered, removed or added, and dates without a whole pull."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipelines.archive.bucket import Bucket
from pipelines.calendar import day_bounds
from pipelines.ringcx.reports.columns import AGENT, GLOBAL
from pipelines.settings import VerifySettings, load
from pipelines.steps.seal.seal_day import Stores, seal_day
from tests.copies import Copies
from tests.pipeline.verify.conftest import ARCHIVE_PREFIX, DAYS, FIRST, LAST, MIDDLE, Copy
from tests.pulls import NO_ROWS


def test_every_ledger_part_that_is_removed_is_named(copy: Copy) -> None:
    parts = [key for day in DAYS for key in copy.keys("ledger/") if f"date={day}/" in key]
    assert len(parts) >= 3 * 6
    kinds = {key.split("/")[2] for key in parts}
    assert kinds == {"recording_states", "report_pulls", "report_rows"}
    for key in parts:
        copy.delete(key)
    named = {subject for _, kind, subject in copy.doubts() if kind == "ledger_part_removed"}
    assert named == {key.removeprefix(f"{ARCHIVE_PREFIX}ledger/") for key in parts}


@pytest.mark.parametrize("kind", ["recording_states", "report_pulls", "report_rows"])
def test_one_removed_ledger_part_is_named(copy: Copy, kind: str) -> None:
    key = [name for name in copy.keys(f"ledger/{kind}/") if f"date={MIDDLE}/" in name][-1]
    copy.delete(key)
    name = key.removeprefix(f"{ARCHIVE_PREFIX}ledger/")
    assert (str(MIDDLE), "ledger_part_removed", name) in copy.doubts()
    assert {doubt["date"] for doubt in copy.result["doubts"]} == {str(MIDDLE)}


def test_an_altered_and_an_added_ledger_part_are_named(copy: Copy) -> None:
    states = [key for key in copy.keys("ledger/recording_states/") if f"date={FIRST}/" in key]
    broken = states[0]
    copy.put(broken, copy.get(broken)[:-1])
    pulls = [key for key in copy.keys("ledger/report_pulls/") if f"date={MIDDLE}/" in key]
    added = pulls[0].replace(pulls[0].rpartition("/")[2], "01JC00000000000000000000ZZ.parquet")
    copy.put(added, copy.get(pulls[0]))
    found = copy.doubts()
    assert (str(FIRST), "ledger_part_altered", broken.removeprefix(f"{ARCHIVE_PREFIX}ledger/")) in found
    assert (str(MIDDLE), "unattested", added.removeprefix(f"{ARCHIVE_PREFIX}ledger/")) in found


def test_a_ledger_that_says_something_else_is_named_by_recording(copy: Copy) -> None:
    recording = copy.held(LAST)[0]
    for key in copy.keys("ledger/recording_states/"):
        if f"date={LAST}/" in key:
            copy.delete(key)
    found = copy.doubts()
    assert {subject for _, kind, subject in found if kind == "ledger_lacks"} >= {recording.recording_id}


def test_dates_never_pulled_or_pulled_in_part_are_named(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, sample: Copies
) -> None:
    before = FIRST - timedelta(days=30)
    assert copy.verify(first=before, last=before) == 1
    assert {(doubt["kind"], doubt["date"]) for doubt in copy.result["doubts"]} == {("never_pulled", str(before))}
    assert [(day["verdict"], day["found"]) for day in copy.result["dates"]] == [("unknown", None)]
    monkeypatch.setenv("RINGCX_ACCOUNT_IDS", f"{sample.variables['RINGCX_ACCOUNT_IDS']},15300009")
    kinds = copy.doubts()
    assert {doubt["sentence"] for doubt in copy.result["doubts"] if str(FIRST) == doubt["date"]} == {
        f"{report} of account 15300009 was never pulled; run {FIRST}" for report in (AGENT, GLOBAL)
    }
    assert {kind for _, kind, _ in kinds} == {"never_pulled"}
    assert len(kinds) == 6
    assert all("15300009" in subject for _, _, subject in kinds)
    monkeypatch.setenv("RINGCX_ACCOUNT_IDS", sample.variables["RINGCX_ACCOUNT_IDS"])
    # In the local days of a zone further west these pulls end hours before the day does.
    monkeypatch.setenv("ARCHIVE_TIMEZONE", "US/Hawaii")
    assert {kind for _, kind, _ in copy.doubts()} == {"partly_pulled"}
    assert all(doubt["sentence"].endswith(f"; run {doubt['date']}") for doubt in copy.result["doubts"])


def test_a_date_that_the_source_may_have_purged_before_its_pull_is_unknown_and_as_it_was_sealed(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, now = FIRST - timedelta(days=120), datetime.now(UTC)
    (pull,) = copy.ledger().pulls(AGENT, FIRST)
    start, end = day_bounds(day, load(VerifySettings).zone)
    for report in (AGENT, GLOBAL):
        late = replace(pull, report=report, day=day, period_start=start, period_end=end, pulled_at=now, **NO_ROWS)
        copy.ledger().append_pull(late)
    for retention, sealed in (("400", "complete"), ("90", "unknown")):
        monkeypatch.setenv("RINGCX_RETENTION_DAYS", retention)
        bucket = Bucket(copy.client, copy.bucket, ARCHIVE_PREFIX)
        assert (
            seal_day(Stores(bucket, copy.ledger(), load(VerifySettings)), day, now=now, run_id="late").verdict.verdict
            == sealed
        )
        monkeypatch.setenv("RINGCX_RETENTION_DAYS", "90")
        assert copy.doubts(day=day) == set()
        (found,) = copy.result["dates"]
        assert found["verdict"] == "unknown"
        assert "the source may have purged it (RINGCX_RETENTION_DAYS is 90) (and 1 more). No run can" in found["reason"]

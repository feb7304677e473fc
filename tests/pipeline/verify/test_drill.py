"""The restore drill."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRunStatus

from pipelines.definitions import build_defs
from tests.pipeline.verify.conftest import ARCHIVE_PREFIX, DAYS, MIDDLE, Copy


def drilled(instance: DagsterInstance) -> tuple[dict[str, Any], str | None]:
    """The figures of one drill, and the sentence with which it fails if it does."""
    job = build_defs().resolve_job_def("restore_drill")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    if result.success:
        (event,) = [event for event in result.events_for_node("prove_sample") if event.is_successful_output]
        metadata, sentence = event.step_output_data.metadata, None
    else:
        (event,) = [event for event in result.events_for_node("prove_sample") if event.is_step_failure]
        failure = event.step_failure_data.user_failure_data
        assert failure is not None
        metadata, sentence = failure.metadata, failure.description
    return {name: value.value for name, value in metadata.items()}, sentence


def test_the_drill_reads_a_sample_keeps_its_result_and_passes(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVE_DRILL_RECORDINGS", "7")
    with DagsterInstance.ephemeral() as instance:
        metadata, failed = drilled(instance)
        assert failed is None
        # The night after the last date has recordings of calls over midnight, and was not run yet: one date more.
        assert metadata["recordings_read"] == 7
        (key,) = copy.keys("verifications/")
        kept = json.loads(copy.get(key))
        assert re.fullmatch(rf"{ARCHIVE_PREFIX}verifications/date={datetime.now(UTC).date()}/[0-9A-Z]{{26}}\.json", key)
        assert kept["sum"]["read"] == 7
        assert kept["read_data"]["seed"] == metadata["seed"]
        monkeypatch.setenv("ARCHIVE_DRILL_RECORDINGS", "1000000")
        metadata, failed = drilled(instance)
        assert metadata["dates"] == 3
        assert metadata["recordings_read"] == sum(len(copy.held(day)) for day in DAYS)
        assert len(copy.keys("verifications/")) == 2


def test_the_drill_fails_with_a_sentence_and_leaves_out_dates_at_work(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIVE_DRILL_RECORDINGS", "1000000")
    recording = copy.held(MIDDLE)[0]
    copy.delete(recording.key)
    with DagsterInstance.ephemeral() as instance:
        metadata, failed = drilled(instance)
        assert "1 discrepancy on 1 of 3 dates" in str(failed)
        assert metadata["discrepancies"] == 1
        (key,) = copy.keys("verifications/")
        assert [doubt["kind"] for doubt in json.loads(copy.get(key))["doubts"]] == ["object_missing"]
        job = build_defs().resolve_job_def("archive_day")
        instance.create_run_for_job(job, tags={"dagster/partition": str(MIDDLE)}, status=DagsterRunStatus.STARTED)
        metadata, failed = drilled(instance)
        assert failed is None
        assert metadata["dates"] == 2


def test_the_drill_succeeds_and_says_so_while_no_date_is_sealed(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVE_PREFIX", "new/")
    with DagsterInstance.ephemeral() as instance:
        metadata, failed = drilled(instance)
    assert failed is None
    assert metadata["dates"] == 0
    assert "no sealed date" in metadata["sentence"]
    (kept,) = (json.loads(copy.get(key)) for key in copy.everything_under("new/verifications/"))
    assert (kept["sealed_dates"], kept["good"]) == (0, True)

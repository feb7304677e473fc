"""Completeness that can be proved: the checks of a date, the check over all dates, and final states tried again."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import wave
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetKey,
    DagsterRunStatus,
    Definitions,
    JobDefinition,
    MetadataValue,
    TableMetadataValue,
)

from pipelines.definitions import build_defs
from pipelines.ledger.states import RecordingState, Status, archived, final, pending_again
from pipelines.orchestration.environment import Environment
from pipelines.orchestration.resources import all_resources
from pipelines.settings import Calendar, load
from pipelines.steps.fetch.attempt import duration_differs
from sandbox.faults import Faults, Where
from tests.history import history
from tests.listing import listed
from tests.pipeline.conftest import UP_TO_RECORDINGS, assets_of_date, job_of_date

OLD = date(2026, 3, 2)
REPORTS = ["agent_segment_metadata", "global_call_type_detail"]
STEREO = ("*-session-*-stereo.WAV",)
FEW = {"calls_per_day": (3, 3)}
ERROR, WARN = AssetCheckSeverity.ERROR, AssetCheckSeverity.WARN


def later(**ahead: float) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + timedelta(**ahead)


def environment_of(it: Any, clock: Callable[[], datetime] | None = None) -> Environment:
    return Environment(clock=clock, s3_client=it.s3) if clock else it.environment


def defs_of(it: Any, clock: Callable[[], datetime] | None = None) -> Definitions:
    return build_defs(environment=environment_of(it, clock))


@cache
def job_of_check(calendar: Calendar, key: AssetCheckKey) -> JobDefinition:
    return job_of_date(calendar).get_subset(asset_selection=set(), asset_check_selection={key})


def check(
    it: Any, name: str, day: date, *, asset: str = "recordings", clock: Callable[[], datetime] | None = None
) -> AssetCheckEvaluation:
    """Execute one check of one date alone, as the UI does."""
    job = job_of_check(load(Calendar), AssetCheckKey(AssetKey(asset), name))
    resources = all_resources(environment_of(it, clock))
    result = job.execute_in_process(partition_key=day.isoformat(), instance=it.instance, resources=resources)
    (found,) = result.get_asset_check_evaluations()
    assert found.partition == day.isoformat()
    return found


def standing(it: Any, *, clock: Callable[[], datetime] | None = None) -> AssetCheckEvaluation:
    result = defs_of(it, clock).resolve_job_def("standing_check").execute_in_process(instance=it.instance)
    (found,) = result.get_asset_check_evaluations()
    return found


def run(it: Any, day: date, **config: Any) -> Any:
    """A run of `recordings` with this config, as the launchpad gives it, without its checks."""
    return assets_of_date(load(Calendar), ("recordings",)).execute_in_process(
        partition_key=day.isoformat(),
        instance=it.instance,
        resources=all_resources(it.environment),
        run_config={"ops": {"recordings": {"config": config}}} if config else None,
        raise_on_error=False,
    )


def fetch(it: Any, day: date) -> None:
    """What a run does to have the recordings: everything but the checks and the seal."""
    assert it.run(day, select=UP_TO_RECORDINGS).success


def figures(found: AssetCheckEvaluation) -> dict[str, Any]:
    return defaultdict(int, {name: value.value for name, value in found.metadata.items()})


def rows(found: AssetCheckEvaluation, name: str) -> list[Mapping[str, Any]]:
    value: Any = found.metadata[name]
    if isinstance(value, TableMetadataValue):
        return [record.data for record in value.records]
    return listed(value.value)


def states_of(it: Any, day: date, status: Status) -> list[RecordingState]:
    return [one for one in it.states(day).values() if one.status is status]


# --- every_recording_is_accounted_for ---


@pytest.fixture
def world(world: Callable[..., Any]) -> Callable[..., Any]:
    """A world whose ledger is a folder, which costs a third less CPU; test_archive has it in the bucket."""
    return partial(world, LEDGER_URL="ledger")


def test_a_run_judges_its_date_with_five_checks_and_a_whole_date_adds_up(
    world: Callable[..., Any], recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = world(sandbox=FEW)
    monkeypatch.setenv("BROWSE_URL", "https://calls.example.com")
    result = it.run(recent[0], checks=True)
    assert result.success
    found = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert [one.check_name for one in result.get_asset_check_evaluations()].count("report_is_plausible") == 2
    held = found["every_recording_is_accounted_for"]
    assert held.passed
    assert held.partition == recent[0].isoformat()
    count = figures(held)
    assert count["found"] == count["archived"] >= len(it.truth(recent[0])) > 0
    assert f"All {count['found']} recordings" in (held.description or "")
    page = f"https://calls.example.com/?from={recent[0]}&to={recent[0]}"
    assert held.metadata["calls_page"] == MetadataValue.url(page)
    assert {it.metadata(result, asset)["calls_page"] for asset in ("recordings", "calls")} == {page}
    assert set(found) == {
        "report_is_plausible",
        "mono_and_stereo_agree",
        "audio_is_true",
        "every_recording_is_accounted_for",
    }


def test_a_date_whose_reports_were_never_pulled_is_never_complete(
    world: Callable[..., Any], recent: list[date]
) -> None:
    it = world(sandbox=FEW)
    found = check(it, "every_recording_is_accounted_for", recent[0])
    assert (found.passed, found.severity) == (False, ERROR)
    assert "never pulled" in (found.description or "")
    assert figures(found)["reports_not_pulled"] == 2
    assert "calls_page" not in found.metadata  # BROWSE_URL is not set
    assert "Run the date again" in figures(found)["to_do"]
    assert found.metadata["run"] == MetadataValue.dagster_run(it.instance.get_runs(limit=1)[0].run_id)
    assert it.run(recent[0], select=["agent_segment_metadata"]).success
    found = check(it, "every_recording_is_accounted_for", recent[0])
    assert not found.passed
    assert [row["report"] for row in rows(found, "not_pulled")] == ["global_call_type_detail"]


def test_one_account_whose_report_is_missing_makes_the_date_incomplete(
    world: Callable[..., Any], recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = world(sandbox={"accounts": ("15300002", "15300003")}, RINGCX_ACCOUNT_IDS="15300002")
    fetch(it, recent[0])
    assert check(it, "every_recording_is_accounted_for", recent[0]).passed
    monkeypatch.setenv("RINGCX_ACCOUNT_IDS", "15300002,15300003")
    found = check(it, "every_recording_is_accounted_for", recent[0])
    assert (found.passed, found.severity) == (False, ERROR)
    assert {row["account"] for row in rows(found, "not_pulled")} == {"15300003"}


def test_a_day_pulled_in_part_warns_while_it_lasts_and_fails_once_it_is_over(
    world: Callable[..., Any], noon: str
) -> None:
    it = world(ARCHIVE_TIMEZONE=noon, sandbox=FEW)
    today = datetime.now(UTC).date()
    fetch(it, today)
    found = check(it, "every_recording_is_accounted_for", today)
    assert (found.passed, found.severity) == (False, WARN)
    assert "not over" in (found.description or "")
    found = check(it, "every_recording_is_accounted_for", today, clock=later(days=1))
    assert (found.passed, found.severity) == (False, ERROR)
    assert "only up to" in (found.description or "")


def test_young_pending_recordings_are_a_warning_and_counted_until_nobody_comes(
    world: Callable[..., Any], recent: list[date]
) -> None:
    it = world(faults=Faults(not_found=Where(paths=STEREO)), ARCHIVE_RETRY_MINUTES="30", sandbox=FEW)
    ran = {one.check_name: one for one in it.run(recent[-1], checks=True).get_asset_check_evaluations()}
    found = ran["every_recording_is_accounted_for"]
    assert (found.passed, found.severity, figures(found)["verdict"]) == (False, WARN, "waiting")
    assert len(rows(found, "waiting_recordings")) == figures(found)["waiting"]
    assert figures(found)["waiting"] == figures(found)["pending"] > 0
    assert "wait for their next attempt" in (found.description or "")
    found = check(it, "every_recording_is_accounted_for", recent[-1], clock=later(hours=2))
    assert (found.passed, found.severity) == (False, ERROR)
    assert figures(found)["overdue"] == figures(found)["pending"]
    assert "daemon" in (found.description or "")


def test_lost_recordings_fail_the_check_and_not_the_run_with_reasons_and_their_ids(world: Callable[..., Any]) -> None:
    it = world(faults=Faults(not_found=Where(paths=STEREO)), sandbox={"calls_per_day": (30, 30)})
    it.run_until_final(OLD)
    ran = it.run(OLD, checks=True)
    assert ran.success
    found = {one.check_name: one for one in ran.get_asset_check_evaluations()}["every_recording_is_accounted_for"]
    lost = {one.recording_id for one in states_of(it, OLD, Status.missing)}
    assert (found.passed, found.severity) == (False, ERROR)
    count = figures(found)
    assert count["lost"] == count["missing"] == len(lost) > 20
    assert count["found"] == count["archived"] + count["lost"]
    sample = {row["recording"] for row in rows(found, "sample")}
    assert sample == lost
    reasons = {(row["state"], row["matter"]): row["recordings"] for row in rows(found, "by_reason")}
    assert reasons["missing", "lost"] == len(lost)
    assert "retry_final" in (found.description or "")


def test_an_object_that_was_deleted_or_replaced_behind_our_back_is_named(
    world: Callable[..., Any], recent: list[date]
) -> None:
    it = world(sandbox=FEW | {"calls_per_day": (8, 8)})
    fetch(it, recent[0])
    gone, shorter, other, moved = states_of(it, recent[0], Status.archived)[:4]
    client = it.s3
    client.delete_object(Bucket=it.bucket, Key=gone.key)
    for victim, body in ((shorter, b"RIFF"), (other, b"x" * (other.size or 0))):
        client.put_object(Bucket=it.bucket, Key=victim.key, Body=body)
    services = it.services()
    # The same bytes under another ETag, as in a bucket that was copied, are no fault.
    services.ledger.append_states([replace(moved, etag="0" * 32, written_at=datetime.now(UTC))])
    found = check(it, "every_recording_is_accounted_for", recent[0])
    assert (found.passed, found.severity) == (False, ERROR)
    named = {row["recording"]: row["matter"] for row in rows(found, "sample")}
    assert named == {
        gone.recording_id: "object_gone",
        shorter.recording_id: "object_changed",
        other.recording_id: "object_changed",
    }


def test_a_link_of_which_the_ledger_has_no_state_is_named(world: Callable[..., Any], recent: list[date]) -> None:
    it = world(LEDGER_URL="the-ledger", sandbox=FEW)
    fetch(it, recent[0])
    near = [recent[0] + timedelta(days=step) for step in (-1, 0, 1)]
    known = set(it.states(*near))
    for part in Path("the-ledger", "recording_states").rglob("*.parquet"):
        part.unlink()
    found = check(it, "every_recording_is_accounted_for", recent[0])
    assert (found.passed, found.severity) == (False, ERROR)
    assert figures(found)["without_state"] == figures(found)["found"] == len(known)
    named = {row["recording"] for row in rows(found, "sample")}
    assert named
    assert named == known


def test_a_faked_conflict_and_a_recording_asked_for_in_vain_for_weeks_fail(
    world: Callable[..., Any], recent: list[date]
) -> None:
    it = world(faults=Faults(server_error=Where(share=1.0), error_status=500), sandbox={"calls_per_day": (3, 3)})
    it.run(recent[0], select=UP_TO_RECORDINGS)
    services = it.services()
    now = datetime.now(UTC)
    one, other = states_of(it, recent[0], Status.pending)[:2]
    services.ledger.append_states(
        [
            final(one, Status.rejected, "conflict", now, "faked"),
            pending_again(
                replace(other, first_seen_at=now - timedelta(days=30)),
                "source_unavailable",
                now,
                "faked",
                next_attempt_at=now,
            ),
        ]
    )
    found = check(it, "every_recording_is_accounted_for", recent[0])
    assert (found.passed, found.severity) == (False, ERROR)
    matters = {row["recording"]: row["matter"] for row in rows(found, "sample")}
    assert matters[one.recording_id] == "conflict"
    assert matters[other.recording_id] == "stuck"


# --- report_is_plausible ---


def weeks_before(it: Any, day: date, weeks: int, *, like: date) -> None:
    """A ledger that remembers pulls of the same weekday, with as many rows as `like` has."""
    ledger = it.services().ledger
    for report in REPORTS:
        for pull in ledger.pulls(report, like):
            for back in range(1, weeks + 1):
                past = day - timedelta(weeks=back)
                ahead = past - like
                ledger.append_pull(
                    replace(
                        pull,
                        day=past,
                        period_start=pull.period_start + ahead,
                        period_end=pull.period_end + ahead,
                        pulled_at=pull.pulled_at + ahead,
                    )
                )


def test_too_little_history_says_so_and_passes(world: Callable[..., Any], recent: list[date]) -> None:
    it = world(sandbox=FEW)
    assert it.run(recent[0], select=REPORTS).success
    weeks_before(it, recent[0], 2, like=recent[0])
    found = check(it, "report_is_plausible", recent[0], asset=REPORTS[0])
    assert found.passed
    assert "history cannot tell" in (found.description or "")
    assert "too little history of this weekday: 2 dates, and 3 are needed" in (found.description or "")


def test_a_day_like_the_weeks_before_is_plausible_and_a_zero_or_a_half_is_not(world: Callable[..., Any]) -> None:
    it = world(sandbox={"calls_per_day": (20, 20)})
    usual, half, none = OLD, OLD + timedelta(days=1), OLD + timedelta(days=2)
    assert it.run(usual, select=REPORTS).success
    for day in (usual, half, none):
        weeks_before(it, day, 3, like=usual)
    calls = sorted({one["uii"] for one in it.truth(half)})
    it.sandbox.set_faults(Faults(late_rows=Where(paths=tuple(f"*{uii}*" for uii in calls[: len(calls) * 2 // 3]))))
    assert it.run(half, select=REPORTS).success
    it.sandbox.set_faults(Faults(late_rows=Where(share=1.0)))
    assert it.run(none, select=REPORTS).success
    for report in REPORTS:
        assert check(it, "report_is_plausible", usual, asset=report).passed
        found = check(it, "report_is_plausible", half, asset=report)
        assert (found.passed, found.severity) == (False, WARN)
        assert "where this weekday usually has" in (found.description or "")
        found = check(it, "report_is_plausible", none, asset=report)
        assert (found.passed, found.severity) == (False, WARN)
        assert "0 rows, where this weekday usually has" in (found.description or "")


@pytest.mark.parametrize("report", REPORTS)
def test_a_first_pull_that_answers_half_its_rows_is_noticed_without_any_history(
    world: Callable[..., Any], report: str
) -> None:
    it = world(sandbox={"calls_per_day": (20, 20)})
    layout = {"agent_segment_metadata": "stereo", "global_call_type_detail": "mono"}[report]
    uiis = sorted({one["uii"] for one in it.truth(OLD) if one["layout"] == layout})
    marks = {"stereo": "*-session-*", "mono": "-[0-9].WAV"}
    hidden = tuple(f"*{uii}{marks[layout]}" for uii in uiis[::2])
    it.sandbox.set_faults(Faults(late_rows=Where(paths=hidden)))
    assert it.run(OLD, select=REPORTS).success
    agree = check(it, "mono_and_stereo_agree", OLD)
    assert (agree.passed, agree.severity) == (False, WARN)
    lacks = {"stereo": "calls_not_in_agent_report", "mono": "calls_not_in_global_report"}[layout]
    assert figures(agree)[lacks] >= len(hidden) // 2


def test_rows_that_vanish_on_a_later_pull_are_counted_and_their_loss_is_noticed(world: Callable[..., Any]) -> None:
    it = world(sandbox={"calls_per_day": (14, 14)})
    fetch(it, OLD)
    assert check(it, "report_is_plausible", OLD, asset=REPORTS[1]).passed
    uiis = sorted({one["uii"] for one in it.truth(OLD)})
    it.sandbox.set_faults(Faults(late_rows=Where(paths=tuple(f"*{uii}*" for uii in uiis[::2]))))
    fetch(it, OLD)
    found = check(it, "report_is_plausible", OLD, asset=REPORTS[1])
    assert (found.passed, found.severity) == (False, WARN)
    assert figures(found)["rows_vanished"] > 0
    assert "vanished from the source" in (found.description or "")
    assert check(it, "every_recording_is_accounted_for", OLD).passed, "what was seen once is still held"


def test_fewer_rows_than_an_earlier_pull_had_are_noticed_though_the_ledger_has_lost_them(
    world: Callable[..., Any],
) -> None:
    it = world(sandbox=FEW)
    assert it.run(OLD, select=REPORTS).success
    ledger = it.services().ledger
    (pull,) = ledger.pulls(REPORTS[1], OLD)
    assert check(it, "report_is_plausible", OLD, asset=REPORTS[1]).passed
    # The lost rows cannot vanish: the pull found none of them.
    ledger.append_pull(replace(pull, rows=1, new=1, pulled_at=datetime.now(UTC)))
    found = check(it, "report_is_plausible", OLD, asset=REPORTS[1])
    assert (found.passed, found.severity) == (False, WARN)
    assert f"1 row, where an earlier pull of the same date had {pull.rows}" in (found.description or "")
    assert figures(found)["rows_vanished"] == 0


def test_one_row_that_vanished_and_one_call_that_is_lacking_are_told_of_as_one(world: Callable[..., Any]) -> None:
    it = world(sandbox=FEW)
    mono, stereo = ({one["uii"] for one in it.truth(OLD) if one["layout"] == of} for of in ("mono", "stereo"))
    it.sandbox.set_faults(Faults(late_rows=Where(paths=(f"*{min(mono & stereo)}-[0-9].WAV",))))
    assert it.run(OLD, select=REPORTS).success
    ledger = it.services().ledger
    (pull,) = ledger.pulls(REPORTS[1], OLD)
    ledger.append_pull(replace(pull, vanished=1, pulled_at=datetime.now(UTC)))
    said = check(it, "report_is_plausible", OLD, asset=REPORTS[1]).description or ""
    assert "1 row seen before is gone from the report" in said
    assert "earlier pull" not in said
    said = check(it, "mono_and_stereo_agree", OLD).description or ""
    assert "1 call is missing from Global Call Type Detail, 0 from" in said


def test_a_report_that_was_never_pulled_is_not_plausible(world: Callable[..., Any], recent: list[date]) -> None:
    it = world(sandbox=FEW)
    found = check(it, "report_is_plausible", recent[0], asset=REPORTS[0])
    assert not found.passed
    assert "never pulled" in (found.description or "")


# --- mono_and_stereo_agree ---


def test_a_call_without_its_mono_and_a_leg_without_its_stereo_are_named_by_uii(world: Callable[..., Any]) -> None:
    it = world()
    truth = it.truth(OLD)
    mono, stereo = ({one["uii"] for one in truth if one["layout"] == layout} for layout in ("mono", "stereo"))
    one_call, other_call = sorted(mono & stereo)[:2]
    hidden = (f"*{one_call}-[0-9].WAV", f"*{other_call}-session-*")
    it.sandbox.set_faults(Faults(late_links=Where(paths=hidden, first=1)))
    assert it.run(OLD, select=REPORTS).success
    found = check(it, "mono_and_stereo_agree", OLD)
    assert (found.passed, found.severity) == (False, WARN)
    named = {(row["matter"], row["uii"]) for row in rows(found, "sample")}
    assert {("without_mono", one_call), ("without_stereo", other_call)} <= named
    assert it.run(OLD, select=REPORTS).success
    after, before = figures(check(it, "mono_and_stereo_agree", OLD)), figures(found)
    assert before["calls_without_mono"] == after["calls_without_mono"] + 1
    assert before["legs_without_stereo"] > after["legs_without_stereo"]
    assert before["calls_without_any_recording"] == after["calls_without_any_recording"]


def test_an_account_without_stereo_recordings_is_not_accused_of_lacking_them(
    world: Callable[..., Any], recent: list[date]
) -> None:
    it = world(faults=Faults(late_links=Where(paths=STEREO)), sandbox=FEW)
    fetch(it, recent[0])
    count = figures(check(it, "mono_and_stereo_agree", recent[0]))
    assert count["agent_legs"] > 0
    assert count["legs_without_stereo"] == 0


# --- audio_is_true ---


def wav(seconds: int, *, left: int, right: int) -> bytes:
    frames = struct.pack("<hh", left, right) + struct.pack("<hh", -left, -right)
    body = io.BytesIO()
    with wave.open(body, "wb") as sound:
        sound.setnchannels(2)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(frames * (seconds * 4000))
    return body.getvalue()


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    """A source that has one recording; yields `host:port`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "audio/wav")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def known_recording(it: Any, day: date, host: str, *, expected_s: float) -> RecordingState:
    """A stereo recording on `day` whose link leads to `host`, as if a row had named it."""
    now = datetime.now(UTC)
    account = it.sandbox.config.accounts[0]
    file = f"perspective/{account}/{day:%Y%m/%d}/{day:%Y%m%d}0930000100000000000001-session-2-stereo.WAV"
    state = RecordingState(
        recording_id=f"{account}/{file}",
        account_id=account,
        uii=f"{day:%Y%m%d}0930000100000000000001",
        layout="stereo",
        source="agent_segment_metadata",
        date=day,
        status=Status.pending,
        next_attempt_at=now,
        run_id="by-hand",
        written_at=now,
        link=f"http://{host}/api/v1/calls/recordings?v=1&accountId={account}&bucket=b&region=r&file={file}",
        found_on=day,
        started_at=now - timedelta(days=1),
        expected_duration_s=expected_s,
        first_seen_at=now,
    )
    it.services().ledger.append_states([state])
    return state


def test_a_recording_with_a_silent_channel_is_held_and_named(world: Callable[..., Any], recent: list[date]) -> None:
    with serving(wav(8, left=9000, right=3)) as host:
        it = world(RINGCX_MEDIA_HOSTS=host, sandbox=FEW)
        named = known_recording(it, recent[0], host, expected_s=8)
        assert it.run(recent[0], select=["recordings"]).success
    assert it.states(recent[0])[named.recording_id].status is Status.archived
    found = check(it, "audio_is_true", recent[0])
    assert (found.passed, found.severity) == (False, WARN)
    (row,) = rows(found, "sample")
    assert (row["recording"], row["matter"]) == (named.recording_id, "channel_2_silent")
    assert f"Of the recordings of {recent[0]}, 1 has a silent channel. Listen" in (found.description or "")


def test_a_recording_of_another_length_than_reported_is_named(world: Callable[..., Any], recent: list[date]) -> None:
    with serving(wav(8, left=9000, right=9000)) as host:
        it = world(RINGCX_MEDIA_HOSTS=host, sandbox=FEW)
        named = known_recording(it, recent[0], host, expected_s=90)
        assert it.run(recent[0], select=["recordings"]).success
    found = check(it, "audio_is_true", recent[0])
    assert (found.passed, found.severity) == (False, WARN)
    (row,) = rows(found, "sample")
    assert (row["recording"], row["matter"]) == (named.recording_id, "duration_differs: 8 s, reported 90 s")
    assert f"Of the recordings of {recent[0]}, 1 differs in length from the report. Listen" in (found.description or "")


def test_recordings_of_nothing_but_a_header_are_named(world: Callable[..., Any]) -> None:
    it = world(faults=Faults(header_only=Where(paths=STEREO)), sandbox=FEW)
    it.run_until_final(OLD)
    found = check(it, "audio_is_true", OLD)
    assert not found.passed
    empty = {one.recording_id for one in states_of(it, OLD, Status.rejected)}
    assert figures(found)["header_only"] == len(empty) > 0
    assert {row["recording"] for row in rows(found, "sample")} <= empty


def test_a_call_recorded_in_two_parts_has_the_length_of_both(world: Callable[..., Any]) -> None:
    it = world(sandbox={**FEW, "talk_seconds": (9, 14)})
    day = date(2026, 3, 3)
    parts = [one for one in it.truth(day) if one["file"].endswith("-2.WAV")]
    assert parts, "the sandbox has a call whose recording was stopped and started again"
    fetch(it, day)
    for one in parts:
        state = it.states(day)[one["recording_id"]]
        assert duration_differs(state.expected_duration_s, state.duration_s), "one part alone is not the call"
    found = check(it, "audio_is_true", day)
    assert found.passed, found.description


# --- final states, tried again on purpose ---


def test_retry_final_takes_what_the_source_has_healed_and_keeps_the_history(world: Callable[..., Any]) -> None:
    it = world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    it.run_until_final(OLD)
    lost = states_of(it, OLD, Status.missing)
    assert lost
    it.sandbox.reset()
    it.sandbox.set_faults(Faults())
    assert run(it, OLD).success
    assert it.sandbox.counters()["requests"].get("media", 0) == 0, "nothing final is tried without being asked"
    result = run(it, OLD, retry_final=True)
    assert result.success
    assert it.metadata(result, "recordings")["reopened_now"] == len(lost)
    assert not states_of(it, OLD, Status.missing)
    for one in lost:
        found = history(it.services().ledger.parts, OLD, one.recording_id)
        assert [(line.status, line.epoch) for line in found] == [
            *[(Status.pending, 0)] * 3,
            (Status.missing, 0),
            (Status.pending, 1),
            (Status.archived, 1),
        ]
        assert found[4].reason == "retry_requested"
    assert check(it, "every_recording_is_accounted_for", OLD).passed


def test_a_retry_of_what_is_still_gone_ends_where_it_was_by_the_same_rule(world: Callable[..., Any]) -> None:
    it = world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    it.run_until_final(OLD)
    lost = states_of(it, OLD, Status.missing)
    assert run(it, OLD, retry_final=True).success
    assert not states_of(it, OLD, Status.missing)
    it.run_until_final(OLD)
    again = {one.recording_id: one for one in states_of(it, OLD, Status.missing)}
    assert again.keys() == {one.recording_id for one in lost}
    assert {one.epoch for one in again.values()} == {1}
    assert {one.attempts for one in again.values()} == {3}


def test_only_the_named_recordings_are_tried_again(world: Callable[..., Any]) -> None:
    it = world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    it.run_until_final(OLD)
    chosen, *others = states_of(it, OLD, Status.missing)
    it.sandbox.set_faults(Faults())
    assert run(it, OLD, retry_recording_ids=[chosen.recording_id]).success
    states = it.states(OLD)
    assert states[chosen.recording_id].status is Status.archived
    assert {states[one.recording_id].status for one in others} == {Status.missing}


def test_an_unknown_id_ends_the_run_with_one_sentence_and_changes_nothing(world: Callable[..., Any]) -> None:
    it = world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    it.run_until_final(OLD)
    before = it.states(OLD)
    known = states_of(it, OLD, Status.missing)[0].recording_id
    result = run(it, OLD, retry_recording_ids=[known, "15300002/no/such.WAV"])
    assert not result.success
    sentence = it.failures(result)["recordings"]
    assert "'15300002/no/such.WAV'" in sentence
    assert str(OLD) in sentence
    assert known not in sentence
    assert it.states(OLD) == before


def test_a_held_recording_whose_object_was_lost_is_fetched_again_when_named(
    world: Callable[..., Any], recent: list[date]
) -> None:
    it = world(sandbox=FEW)
    fetch(it, recent[0])
    gone, kept = states_of(it, recent[0], Status.archived)[:2]
    it.s3.delete_object(Bucket=it.bucket, Key=gone.key)
    it.sandbox.reset()
    assert run(it, recent[0], retry_recording_ids=[gone.recording_id, kept.recording_id]).success
    assert it.objects()[gone.key] == gone.sha256
    assert it.sandbox.counters()["requests"]["media"] == 1, "what lies in the bucket is adopted"
    assert check(it, "every_recording_is_accounted_for", recent[0]).passed


def test_a_link_that_is_still_not_allowed_stays_rejected_when_a_retry_is_asked_for(
    world: Callable[..., Any], recent: list[date]
) -> None:
    it = world(RINGCX_MEDIA_HOSTS="recordings.example.com", sandbox=FEW)
    fetch(it, recent[0])
    before = it.states(recent[0])
    result = run(it, recent[0], retry_final=True)
    assert result.success
    assert it.metadata(result, "recordings")["still_not_allowed"] >= len(before) > 0
    assert it.states(recent[0]) == before
    assert it.sandbox.counters()["requests"].get("media", 0) == 0


# --- no_overdue_recordings ---


def test_an_empty_archive_and_a_whole_one_have_nothing_overdue(world: Callable[..., Any]) -> None:
    it = world(sandbox=FEW)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    assert standing(it).passed
    for day in (yesterday - timedelta(days=1), yesterday):
        fetch(it, day)
    found = standing(it)
    assert found.passed, found.description
    assert found.partition is None
    assert figures(found)["missing_now"] == 0


def test_the_standing_check_knows_waiting_from_late_and_says_who_is_missing(world: Callable[..., Any]) -> None:
    it = world(faults=Faults(not_found=Where(paths=STEREO)), ARCHIVE_RETRY_MINUTES="30", sandbox=FEW)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    fetch(it, yesterday)
    waiting = {one.recording_id for one in it.states(yesterday).values() if one.status is Status.pending}
    found = standing(it)
    assert found.passed, found.description
    assert figures(found)["pending"] == figures(found)["missing_now"] >= len(waiting) > 0
    found = standing(it, clock=later(hours=1))
    assert (found.passed, found.severity) == (False, ERROR)
    assert figures(found)["overdue"] == figures(found)["pending"]
    assert {row["matter"] for row in rows(found, "sample")} == {"overdue"}
    # A run of the date that has not ended is the reason, and no fault.
    run_of_date = it.instance.create_run_for_job(
        build_defs().resolve_job_def("archive_day"),
        tags={"dagster/partition": yesterday.isoformat()},
        status=DagsterRunStatus.STARTED,
    )
    assert figures(standing(it, clock=later(hours=1)))["overdue"] == 0
    it.instance.delete_run(run_of_date.run_id)


def test_the_standing_check_writes_what_the_archive_holds_in_all(world: Callable[..., Any]) -> None:
    it = world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    held = []
    for day in (OLD, OLD + timedelta(days=7)):
        it.run(day, select=UP_TO_RECORDINGS)
        standing(it)
        sizes = [one["Size"] for one in it.s3.list_objects_v2(Bucket=it.bucket, Prefix="recordings/")["Contents"]]
        held.append((len(sizes), round(sum(sizes) / 1e9, 3)))
    written = it.instance.fetch_materializations(AssetKey("archive_totals"), limit=9, ascending=True).records
    metadata = [record.asset_materialization.metadata for record in written]
    assert [(one["recordings_held_in_all"].value, one["gb_held_in_all"].value) for one in metadata] == held
    assert 0 < held[0][0] < held[1][0]


def test_pending_recordings_are_at_risk_when_the_source_will_purge_them_within_the_margin(
    world: Callable[..., Any],
) -> None:
    today = datetime.now(UTC).date()
    old, young = today - timedelta(days=80), today - timedelta(days=5)
    it = world(
        faults=Faults(server_error=Where(paths=STEREO), error_status=500), ARCHIVE_RETRY_MINUTES="60", sandbox=FEW
    )
    for day in (old, young):
        it.run(day, select=UP_TO_RECORDINGS)
    count = {
        day: sum(one.status is Status.pending for one in it.states(day, day + timedelta(days=1)).values())
        for day in (old, young)
    }
    found = standing(it)
    assert (found.passed, found.severity) == (False, ERROR)
    assert figures(found)["at_risk"] == count[old] > 0
    assert "less than 14 days left" in (found.description or "")
    assert figures(found)["pending"] == count[old] + count[young]
    assert {row["matter"] for row in rows(found, "sample")} == {"at_risk"}


def test_losses_are_errors_while_the_source_may_still_have_them_and_warnings_after(world: Callable[..., Any]) -> None:
    it = world(faults=Faults(forbidden=Where(paths=STEREO)), sandbox=FEW)
    month_ago = datetime.now(UTC).date() - timedelta(days=30)
    it.run_until_final(OLD)
    found = standing(it)
    assert (found.passed, found.severity) == (False, WARN)
    assert figures(found)["lost"] > figures(found)["lost_within_retention"] == 0
    assert {row["state"] for row in rows(found, "by_reason")} == {"denied"}
    assert len(rows(found, "sample")) == figures(found)["lost"]
    it.run_until_final(month_ago)
    found = standing(it)
    assert (found.passed, found.severity) == (False, ERROR)
    assert figures(found)["lost_within_retention"] > 0


@pytest.mark.parametrize(
    ("number", "waiting", "young", "late", "lost"),
    [
        (
            1,
            "1 waits for its next attempt, the next at",
            "1 recording is young and waits for its next attempt",
            (
                "1 recording is not archived now. 1 pending recording has less than 14 days left",
                "1 is late:",
                "1 has been requested",
            ),
            "1 recording is not archived now. 1 is lost (`missing`",
        ),
        (
            2,
            "2 wait for their next attempt, the next at",
            "2 recordings are young and wait for their next attempt",
            (
                "2 recordings are not archived now. 2 pending recordings have less than 14 days left",
                "2 are late:",
                "2 have been requested",
            ),
            "2 recordings are not archived now. 2 are lost (`missing`",
        ),
    ],
)
def test_one_recording_is_told_of_as_one_and_more_as_more(  # noqa: PLR0917 - given by name
    world: Callable[..., Any], number: int, waiting: str, young: str, late: tuple[str, ...], lost: str
) -> None:
    it = world(sandbox=FEW)
    day = datetime.now(UTC).date() - timedelta(days=2)
    ledger = it.services().ledger
    one = known_recording(it, day, "localhost", expected_s=1)
    known = [one, replace(one, recording_id=f"{one.recording_id}.WAV")][:number]
    ledger.append_states(known[1:])
    assert waiting in (check(it, "every_recording_is_accounted_for", day).description or "")
    assert young in (standing(it).description or "")
    found = standing(it, clock=later(days=80)).description or ""
    assert [said for said in late if said not in found] == []
    ledger.append_states([final(one, Status.missing, "not_found", datetime.now(UTC), "by-hand") for one in known])
    assert lost in (standing(it).description or "")
    assert f"by date, the source should still have {number}:" in (standing(it).description or "")


def test_a_date_that_nobody_pulled_since_the_archive_began_is_named(world: Callable[..., Any]) -> None:
    it = world(sandbox=FEW)
    today = datetime.now(UTC).date()
    for back in (4, 2, 1):
        fetch(it, today - timedelta(days=back))
    found = standing(it)
    assert (found.passed, found.severity) == (False, WARN)
    assert [row["date"] for row in rows(found, "not_pulled")] == [str(today - timedelta(days=3))]
    assert "1 date since the archive began was never fully pulled" in (found.description or "")
    fetch(it, today - timedelta(days=3))
    assert standing(it).passed


# --- what Dagster is told ---


def test_a_check_that_cannot_judge_says_why_and_fails_no_run(world: Callable[..., Any], tmp_path: Path) -> None:
    it = world(LEDGER_URL="damaged", sandbox=FEW)
    fetch(it, OLD)
    part = next(Path("damaged", "recording_states", f"date={OLD}").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-40])
    for name, sentence in (("audio_is_true", "could not be checked"), ("every_recording_is_accounted_for", "unknown")):
        found = check(it, name, OLD)
        assert (found.passed, found.severity) == (False, ERROR)
        assert sentence in (found.description or "")
        assert part.name in (found.description or "")


def test_the_checks_are_defined_without_a_warning_and_none_of_them_blocks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = build_defs().resolve_asset_graph()
    specs = [graph.get_check_spec(key) for key in graph.asset_check_keys]
    assert specs
    assert not [spec.name for spec in specs if spec.blocking]
    assert all(spec.description for spec in specs)


def test_a_faked_hold_without_an_object_does_not_pass(world: Callable[..., Any], recent: list[date]) -> None:
    it = world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    fetch(it, recent[0])
    victim = states_of(it, recent[0], Status.pending)[0]
    faked = archived(
        victim,
        key=f"recordings/date={recent[0]}/account_id={victim.account_id}/layout=stereo/faked.WAV",
        size=1000,
        sha256="0" * 64,
        duration_s=1.0,
        etag=None,
        version_id=None,
        warnings=(),
        now=datetime.now(UTC),
        run_id="faked",
    )
    it.services().ledger.append_states([faked])
    found = check(it, "every_recording_is_accounted_for", recent[0])
    assert (found.passed, found.severity) == (False, ERROR)
    assert [(row["recording"], row["matter"]) for row in rows(found, "sample")] == [
        (victim.recording_id, "object_gone")
    ]

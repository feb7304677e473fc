"""The check `every_recording_is_accounted_for`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from dagster import (
    MetadataValue,
)

from pipelines.ledger.states import Status, archived, final, pending_again
from sandbox.faults import Faults, Where
from tests.pipeline.checks.conftest import (
    ERROR,
    FEW,
    OLD,
    STEREO,
    WARN,
    check,
    fetch,
    figures,
    later,
    rows,
    states_of,
)
from tests.pipeline.conftest import UP_TO_RECORDINGS, MakeWorld


def test_a_run_judges_its_date_with_five_checks_and_a_whole_date_adds_up(
    make_world: MakeWorld, recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(sandbox=FEW)
    monkeypatch.setenv("BROWSE_URL", "https://calls.example.com")
    result = world.run(recent[0], checks=True)
    assert result.success
    found = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    assert [evaluation.check_name for evaluation in result.get_asset_check_evaluations()].count(
        "report_is_plausible"
    ) == 2
    held = found["every_recording_is_accounted_for"]
    assert held.passed
    assert held.partition == recent[0].isoformat()
    count = figures(held)
    assert count["found"] == count["archived"] >= len(world.truth(recent[0])) > 0
    assert f"All {count['found']} recordings" in (held.description or "")
    page = f"https://calls.example.com/?from={recent[0]}&to={recent[0]}"
    assert held.metadata["calls_page"] == MetadataValue.url(page)
    assert {world.metadata(result, asset)["calls_page"] for asset in ("recordings", "calls")} == {page}
    assert set(found) == {
        "report_is_plausible",
        "mono_and_stereo_agree",
        "audio_is_true",
        "every_recording_is_accounted_for",
    }


def test_a_date_whose_reports_were_never_pulled_is_never_complete(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(sandbox=FEW)
    found = check(world, "every_recording_is_accounted_for", recent[0])
    assert (found.passed, found.severity) == (False, ERROR)
    assert "never pulled" in (found.description or "")
    assert figures(found)["reports_not_pulled"] == 2
    assert "calls_page" not in found.metadata  # BROWSE_URL is not set
    assert "Run the date again" in figures(found)["to_do"]
    assert found.metadata["run"] == MetadataValue.dagster_run(world.instance.get_runs(limit=1)[0].run_id)
    assert world.run(recent[0], select=["agent_segment_metadata"]).success
    found = check(world, "every_recording_is_accounted_for", recent[0])
    assert not found.passed
    assert [row["report"] for row in rows(found, "not_pulled")] == ["global_call_type_detail"]


def test_one_account_whose_report_is_missing_makes_the_date_incomplete(
    make_world: MakeWorld, recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(sandbox={"accounts": ("15300002", "15300003")}, RINGCX_ACCOUNT_IDS="15300002")
    fetch(world, recent[0])
    assert check(world, "every_recording_is_accounted_for", recent[0]).passed
    monkeypatch.setenv("RINGCX_ACCOUNT_IDS", "15300002,15300003")
    found = check(world, "every_recording_is_accounted_for", recent[0])
    assert (found.passed, found.severity) == (False, ERROR)
    assert {row["account"] for row in rows(found, "not_pulled")} == {"15300003"}


def test_a_day_pulled_in_part_warns_while_it_lasts_and_fails_once_it_is_over(make_world: MakeWorld, noon: str) -> None:
    world = make_world(ARCHIVE_TIMEZONE=noon, sandbox=FEW)
    today = datetime.now(UTC).date()
    fetch(world, today)
    found = check(world, "every_recording_is_accounted_for", today)
    assert (found.passed, found.severity) == (False, WARN)
    assert "not over" in (found.description or "")
    found = check(world, "every_recording_is_accounted_for", today, clock=later(days=1))
    assert (found.passed, found.severity) == (False, ERROR)
    assert "only up to" in (found.description or "")


def test_young_pending_recordings_are_a_warning_and_counted_until_nobody_comes(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(faults=Faults(not_found=Where(paths=STEREO)), ARCHIVE_RETRY_MINUTES="30", sandbox=FEW)
    ran = {
        evaluation.check_name: evaluation
        for evaluation in world.run(recent[-1], checks=True).get_asset_check_evaluations()
    }
    found = ran["every_recording_is_accounted_for"]
    assert (found.passed, found.severity, figures(found)["verdict"]) == (False, WARN, "waiting")
    assert len(rows(found, "waiting_recordings")) == figures(found)["waiting"]
    assert figures(found)["waiting"] == figures(found)["pending"] > 0
    assert "wait for their next attempt" in (found.description or "")
    found = check(world, "every_recording_is_accounted_for", recent[-1], clock=later(hours=2))
    assert (found.passed, found.severity) == (False, ERROR)
    assert figures(found)["overdue"] == figures(found)["pending"]
    assert "daemon" in (found.description or "")


def test_lost_recordings_fail_the_check_and_not_the_run_with_reasons_and_their_ids(
    make_world: MakeWorld,
) -> None:
    world = make_world(faults=Faults(not_found=Where(paths=STEREO)), sandbox={"calls_per_day": (30, 30)})
    world.run_until_final(OLD)
    ran = world.run(OLD, checks=True)
    assert ran.success
    found = {evaluation.check_name: evaluation for evaluation in ran.get_asset_check_evaluations()}[
        "every_recording_is_accounted_for"
    ]
    lost = {state.recording_id for state in states_of(world, OLD, Status.missing)}
    assert (found.passed, found.severity) == (False, ERROR)
    count = figures(found)
    assert count["lost"] == count["missing"] == len(lost) > 20
    assert count["found"] == count["archived"] + count["lost"]
    sample = {row["recording"] for row in rows(found, "sample")}
    assert sample == lost
    reasons = {(row["state"], row["condition"]): row["recordings"] for row in rows(found, "by_reason")}
    assert reasons["missing", "lost"] == len(lost)
    assert "retry_final" in (found.description or "")


def test_an_object_that_was_deleted_or_replaced_behind_our_back_is_named(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(sandbox=FEW | {"calls_per_day": (8, 8)})
    fetch(world, recent[0])
    gone, shorter, other, moved = states_of(world, recent[0], Status.archived)[:4]
    client = world.s3
    client.delete_object(Bucket=world.bucket, Key=gone.key)
    for victim, body in ((shorter, b"RIFF"), (other, b"x" * (other.size or 0))):
        client.put_object(Bucket=world.bucket, Key=victim.key, Body=body)
    services = world.services()
    # The same bytes under another ETag, as in a bucket that was copied, are no fault.
    services.ledger.append_states([replace(moved, etag="0" * 32, written_at=datetime.now(UTC))])
    found = check(world, "every_recording_is_accounted_for", recent[0])
    assert (found.passed, found.severity) == (False, ERROR)
    named = {row["recording"]: row["condition"] for row in rows(found, "sample")}
    assert named == {
        gone.recording_id: "object_gone",
        shorter.recording_id: "object_changed",
        other.recording_id: "object_changed",
    }


def test_a_link_of_which_the_ledger_has_no_state_is_named(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(LEDGER_URL="the-ledger", sandbox=FEW)
    fetch(world, recent[0])
    near = [recent[0] + timedelta(days=step) for step in (-1, 0, 1)]
    known = set(world.states(*near))
    for part in Path("the-ledger", "recording_states").rglob("*.parquet"):
        part.unlink()
    found = check(world, "every_recording_is_accounted_for", recent[0])
    assert (found.passed, found.severity) == (False, ERROR)
    assert figures(found)["without_state"] == figures(found)["found"] == len(known)
    named = {row["recording"] for row in rows(found, "sample")}
    assert named
    assert named == known


def test_a_faked_conflict_and_a_recording_asked_for_in_vain_for_weeks_fail(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(
        faults=Faults(server_error=Where(share=1.0), error_status=500), sandbox={"calls_per_day": (3, 3)}
    )
    world.run(recent[0], select=UP_TO_RECORDINGS)
    services = world.services()
    now = datetime.now(UTC)
    first, other = states_of(world, recent[0], Status.pending)[:2]
    services.ledger.append_states(
        [
            final(first, Status.rejected, "conflict", now, "faked"),
            pending_again(
                replace(other, first_seen_at=now - timedelta(days=30)),
                "source_unavailable",
                now,
                "faked",
                next_attempt_at=now,
            ),
        ]
    )
    found = check(world, "every_recording_is_accounted_for", recent[0])
    assert (found.passed, found.severity) == (False, ERROR)
    conditions = {row["recording"]: row["condition"] for row in rows(found, "sample")}
    assert conditions[first.recording_id] == "conflict"
    assert conditions[other.recording_id] == "stuck"


def test_a_faked_hold_without_an_object_does_not_pass(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    fetch(world, recent[0])
    victim = states_of(world, recent[0], Status.pending)[0]
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
    world.services().ledger.append_states([faked])
    found = check(world, "every_recording_is_accounted_for", recent[0])
    assert (found.passed, found.severity) == (False, ERROR)
    assert [(row["recording"], row["condition"]) for row in rows(found, "sample")] == [
        (victim.recording_id, "object_gone")
    ]

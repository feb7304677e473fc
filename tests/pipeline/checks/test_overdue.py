"""The check `no_overdue_recordings` over all dates."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from dagster import (
    DagsterRunStatus,
)

from pipelines.definitions import build_defs
from pipelines.ledger.states import Status, final
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
    known_recording,
    later,
    rows,
    standing,
)
from tests.pipeline.conftest import UP_TO_RECORDINGS, MakeWorld


def test_an_empty_archive_and_a_whole_one_have_nothing_overdue(make_world: MakeWorld) -> None:
    world = make_world(sandbox=FEW)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    assert standing(world).passed
    for day in (yesterday - timedelta(days=1), yesterday):
        fetch(world, day)
    found = standing(world)
    assert found.passed, found.description
    assert found.partition is None
    assert figures(found)["missing_now"] == 0


def test_the_check_knows_waiting_from_overdue_and_says_who_is_missing(make_world: MakeWorld) -> None:
    world = make_world(faults=Faults(not_found=Where(paths=STEREO)), ARCHIVE_RETRY_MINUTES="30", sandbox=FEW)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    fetch(world, yesterday)
    waiting = {state.recording_id for state in world.states(yesterday).values() if state.status is Status.pending}
    found = standing(world)
    assert found.passed, found.description
    assert figures(found)["pending"] == figures(found)["missing_now"] >= len(waiting) > 0
    found = standing(world, clock=later(hours=1))
    assert (found.passed, found.severity) == (False, ERROR)
    assert figures(found)["overdue"] == figures(found)["pending"]
    assert {row["condition"] for row in rows(found, "sample")} == {"overdue"}
    # A run of the date that has not ended is the reason, and no fault.
    run_of_date = world.instance.create_run_for_job(
        build_defs().resolve_job_def("archive_day"),
        tags={"dagster/partition": yesterday.isoformat()},
        status=DagsterRunStatus.STARTED,
    )
    assert figures(standing(world, clock=later(hours=1)))["overdue"] == 0
    world.instance.delete_run(run_of_date.run_id)


def test_the_standing_check_shows_what_the_archive_holds_in_all(make_world: MakeWorld) -> None:
    world = make_world(faults=Faults(not_found=Where(paths=STEREO)), sandbox=FEW)
    held = []
    for day in (OLD, OLD + timedelta(days=7)):
        world.run(day, select=UP_TO_RECORDINGS)
        shown = standing(world).metadata
        sizes = [
            item["Size"] for item in world.s3.list_objects_v2(Bucket=world.bucket, Prefix="recordings/")["Contents"]
        ]
        held.append(len(sizes))
        totals = [shown[name].value for name in ("recordings_held_in_all", "gb_held_in_all")]
        assert totals == [len(sizes), round(sum(sizes) / 1e9, 3)]
    assert 0 < held[0] < held[1]


def test_pending_recordings_are_at_risk_when_the_source_will_purge_them_within_the_margin(
    make_world: MakeWorld,
) -> None:
    today = datetime.now(UTC).date()
    old, young = today - timedelta(days=80), today - timedelta(days=5)
    world = make_world(
        faults=Faults(server_error=Where(paths=STEREO), error_status=500), ARCHIVE_RETRY_MINUTES="60", sandbox=FEW
    )
    for day in (old, young):
        world.run(day, select=UP_TO_RECORDINGS)
    count = {
        day: sum(state.status is Status.pending for state in world.states(day, day + timedelta(days=1)).values())
        for day in (old, young)
    }
    found = standing(world)
    assert (found.passed, found.severity) == (False, ERROR)
    assert figures(found)["at_risk"] == count[old] > 0
    assert "less than 14 days left" in (found.description or "")
    assert figures(found)["pending"] == count[old] + count[young]
    assert {row["condition"] for row in rows(found, "sample")} == {"at_risk"}


def test_losses_are_errors_while_the_source_may_still_have_them_and_warnings_after(
    make_world: MakeWorld,
) -> None:
    world = make_world(faults=Faults(forbidden=Where(paths=STEREO)), sandbox=FEW)
    month_ago = datetime.now(UTC).date() - timedelta(days=30)
    world.run_until_final(OLD)
    found = standing(world)
    assert (found.passed, found.severity) == (False, WARN)
    assert figures(found)["lost"] > figures(found)["lost_within_retention"] == 0
    assert {row["state"] for row in rows(found, "by_reason")} == {"denied"}
    assert len(rows(found, "sample")) == figures(found)["lost"]
    world.run_until_final(month_ago)
    found = standing(world)
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
                "1 is overdue:",
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
                "2 are overdue:",
                "2 have been requested",
            ),
            "2 recordings are not archived now. 2 are lost (`missing`",
        ),
    ],
)
def test_one_recording_is_told_of_as_one_and_more_as_more(  # noqa: PLR0917 - given by name
    make_world: MakeWorld, number: int, waiting: str, young: str, late: tuple[str, ...], lost: str
) -> None:
    world = make_world(sandbox=FEW)
    day = datetime.now(UTC).date() - timedelta(days=2)
    ledger = world.services().ledger
    recording = known_recording(world, day, "localhost", expected_s=1)
    known = [recording, replace(recording, recording_id=f"{recording.recording_id}.WAV")][:number]
    ledger.append_states(known[1:])
    assert waiting in (check(world, "every_recording_is_accounted_for", day).description or "")
    assert young in (standing(world).description or "")
    found = standing(world, clock=later(days=80)).description or ""
    assert [sentence for sentence in late if sentence not in found] == []
    ledger.append_states([final(state, Status.missing, "not_found", datetime.now(UTC), "by-hand") for state in known])
    assert lost in (standing(world).description or "")
    assert f"{number} lost recording{'s' * (number > 1)} should still be in the source, judging by" in (
        standing(world).description or ""
    )


def test_a_date_that_nobody_pulled_since_the_archive_began_is_named(make_world: MakeWorld) -> None:
    world = make_world(sandbox=FEW)
    today = datetime.now(UTC).date()
    for back in (4, 2, 1):
        fetch(world, today - timedelta(days=back))
    found = standing(world)
    assert (found.passed, found.severity) == (False, WARN)
    assert [row["date"] for row in rows(found, "not_pulled")] == [str(today - timedelta(days=3))]
    assert "1 date since the archive began was never fully pulled" in (found.description or "")
    fetch(world, today - timedelta(days=3))
    assert standing(world).passed

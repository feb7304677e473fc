"""What watches over all dates, over a local ledger: it misses nothing, and nothing keeps it from the rest."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dagster import DagsterInstance, SensorResult, build_sensor_context

from pipelines.archive.bucket import Bucket, Listed
from pipelines.definitions import build_defs
from pipelines.ledger.files import LedgerDamaged, LedgerUnavailable, LocalFiles
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.states import RecordingState, archived
from pipelines.ledger.store import Ledger
from pipelines.orchestration.sensors import pending as sensors
from pipelines.orchestration.sensors.pending import Cursor, changed_dates
from pipelines.ringcx.reports.columns import LEGACY
from pipelines.settings import Calendar, PlanSettings, VerifySettings
from pipelines.steps.check.all_dates import no_overdue_recordings
from pipelines.steps.check.audio import audio_is_true
from pipelines.steps.check.result import CheckResult, Level
from pipelines.steps.check.verdict import every_recording_is_accounted_for, judge_date
from tests import states
from tests.pulls import NO_ROWS

DAY = date(2026, 11, 17)
NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)
DUE = NOW - timedelta(hours=8)


def pending(day: date, *, due: datetime = DUE, found_on: date | None = None, name: str = "a") -> RecordingState:
    return states.pending(f"1/{day}/{name}", day, due, found_on=found_on or day, written_at=NOW)


class Watched:
    """A ledger in a folder, and a clock that the test sets."""

    def __init__(self, root: Path, instance: DagsterInstance) -> None:
        self.root, self.instance, self.now, self.start = root, instance, NOW, date(2024, 1, 1)

    def ledger(self, *, ahead: timedelta = timedelta(0)) -> Ledger:
        return Ledger(LocalFiles(self.root / "ledger"), clock=lambda: self.now + ahead)

    def tick(self, cursor: str | None = None, *, ledger: Ledger | None = None, name: str = "pending_recordings") -> Any:
        resources = {
            "environment": SimpleNamespace(clock=lambda: self.now),
            "ledger": SimpleNamespace(open=lambda: ledger or self.ledger()),
        }
        repository = build_defs(calendar=Calendar(archive_start_date=self.start)).get_repository_def()
        context = build_sensor_context(self.instance, cursor, repository_def=repository, resources=resources)
        found = repository.get_sensor_def(name).evaluate_tick(context)
        assert isinstance(found.cursor, str)
        return found

    def asked(self, found: SensorResult) -> list[str]:
        return [request.partition_key for request in found.run_requests or ()]

    def check(self) -> CheckResult:
        settings = PlanSettings(
            archive_bucket="archive", ringcx_account_ids=("1",), archive_start_date=self.start, archive_timezone="UTC"
        )
        return no_overdue_recordings(self.ledger(), settings, busy=(), now=self.now)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with DagsterInstance.ephemeral() as instance:
        yield Watched(tmp_path, instance)


def test_a_recording_dated_before_the_first_partition_stops_no_tick_and_is_named_by_the_standing_check(
    watched: Watched,
) -> None:
    old, new = date(2023, 12, 30), date(2026, 11, 17)
    watched.ledger().append_states([pending(old), pending(new)])
    found = watched.tick()
    assert watched.asked(found) == [str(new)]
    assert datetime.fromisoformat(json.loads(found.cursor)["read_until"]) == NOW
    result = watched.check()
    assert result.level is Level.error
    assert result.counts["without_partition"] == 1
    assert "ARCHIVE_START_DATE=2024-01-01" in result.sentence
    assert str(old) in result.sentence
    assert ("1/2023-12-30/a", "without_partition") in [tuple(row[:2]) for row in result.lists["sample"].to_numpy()]
    watched.start = old
    assert watched.check().counts["without_partition"] == 0
    assert watched.asked(watched.tick()) == [str(new), str(old)]


def test_a_recording_dated_in_the_future_is_fetched_by_the_run_of_the_date_that_found_it(watched: Watched) -> None:
    watched.ledger().append_states([pending(date(2031, 1, 1), found_on=date(2026, 11, 17))])
    assert watched.asked(watched.tick()) == ["2026-11-17"]
    assert watched.check().counts["without_partition"] == 0


def test_a_recording_of_a_date_that_was_never_pulled_is_fetched_by_the_run_of_the_date_that_found_it(
    watched: Watched,
) -> None:
    after, ledger = DAY + timedelta(days=1), watched.ledger()
    ledger.append_states([pending(after, found_on=DAY)])
    assert watched.asked(watched.tick()) == [str(DAY)]
    times = {"period_start": NOW, "period_end": NOW, "pulled_at": NOW}
    report = {"report": "agent_segment_metadata", "day": after, "account_id": "1", "run_id": "r", "sha256": ""}
    ledger.append_pull(PullRecord(**report, **times, **NO_ROWS))
    assert watched.asked(watched.tick()) == [str(after)]


def test_one_part_from_a_clock_that_is_ahead_blinds_neither_the_sensor_nor_the_standing_check(
    watched: Watched,
) -> None:
    watched.ledger(ahead=timedelta(days=30)).append_states([pending(date(2026, 11, 1), due=NOW + timedelta(days=400))])
    cursor = watched.tick().cursor
    assert watched.check().counts["overdue"] == 0
    watched.now += timedelta(days=3)
    watched.ledger().append_states([pending(date(2026, 11, 15), due=watched.now - timedelta(hours=8))])
    assert watched.asked(watched.tick(cursor)) == ["2026-11-15"]
    found = watched.check()
    assert (found.level, found.counts["overdue"], found.counts["pending"]) == (Level.error, 1, 2)


def test_a_tick_over_a_long_ledger_ends_in_time_keeps_its_place_and_the_next_ones_read_the_rest(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [date(2026, 6, 1) + timedelta(days=number) for number in range(60)]
    watched.ledger().append_states([pending(day) for day in days])  # by one clock: all at one time
    clock = map(float, itertools.count()).__next__

    def slow(*arguments: Any) -> Any:  # each reading takes a second
        return changed_dates(*arguments, seconds=20, clock=clock)

    monkeypatch.setattr(sensors, "changed_dates", slow)
    cursor, known = None, []
    for _ in range(3):
        found = watched.tick(cursor)
        cursor = found.cursor
        known.append(len(json.loads(cursor)["due"]))
    assert known == [20, 40, 60]


def test_what_is_written_during_a_look_over_several_ticks_is_read_too(watched: Watched) -> None:
    days = [date(2026, 6, 1) + timedelta(days=number) for number in range(30)]
    watched.ledger().append_states([pending(day) for day in days])
    cursor, read = Cursor(), list[date]()
    for _ in range(3):
        clock = map(float, itertools.count()).__next__
        changes = changed_dates(watched.ledger(), cursor, watched.now, lambda _: {}, seconds=12, clock=clock)
        read += [day for day, _ in changes]
        watched.now += timedelta(minutes=1)
        watched.ledger(ahead=timedelta(minutes=-5)).append_states([pending(days[0])])
        cursor = Cursor.model_validate_json(cursor.model_dump_json())
    assert set(read) == set(days)
    assert days[0] in [day for day, _ in changed_dates(watched.ledger(), cursor, watched.now, lambda _: {})]


def test_a_look_whose_listing_takes_all_its_time_gets_on_all_the_same(watched: Watched) -> None:
    days = [date(2026, 6, 1) + timedelta(days=number) for number in range(20)]
    watched.ledger().append_states([pending(day) for day in days])
    cursor, read = Cursor(), list[date]()
    for _ in range(3):
        clock = map(float, itertools.count(step=60)).__next__
        read += [
            day for day, _ in changed_dates(watched.ledger(), cursor, watched.now, lambda _: {}, seconds=7, clock=clock)
        ]
    assert list(dict.fromkeys(read)) == days


def test_a_damaged_part_keeps_no_other_date_from_being_read_and_is_read_once_it_is_restored(watched: Watched) -> None:
    bad, good = date(2026, 11, 16), date(2026, 11, 17)
    watched.ledger().append_states([pending(bad), pending(good)])
    (part,) = (watched.root / "ledger" / "recording_states" / f"date={bad}").iterdir()
    body = part.read_bytes()
    part.write_bytes(body[:-40])
    found = watched.tick()
    assert watched.asked(found) == [str(good)]
    result = watched.check()
    assert (result.level, result.counts["dates_damaged"], result.counts["overdue"]) == (Level.error, 1, 1)
    assert part.name in result.lists["damaged"]["problem"][0]
    part.write_bytes(body)
    watched.now += timedelta(days=1)
    assert str(bad) in watched.asked(watched.tick(found.cursor))
    result = watched.check()
    assert (result.counts["dates_damaged"], result.counts["overdue"]) == (0, 2)


@pytest.mark.parametrize("version", ["0.1.0", "before 0.2.0"])
def test_after_an_upgrade_every_date_is_read_again(watched: Watched, version: str) -> None:
    watched.ledger().append_states([pending(DAY)])
    watched.now += timedelta(hours=2)
    position = {"read_to": watched.now.isoformat(), "damaged": [str(DAY)]}
    old = {**position, "look": None} if version == "0.1.0" else {"position": position}
    assert watched.asked(watched.tick(json.dumps({**old, "due": {}}))) == [str(DAY)]


def test_a_store_that_stops_answering_ends_the_tick_with_a_sentence_and_keeps_what_was_read(watched: Watched) -> None:
    days = [date(2026, 6, 1) + timedelta(days=number) for number in range(30)]
    watched.ledger().append_states([pending(day) for day in days])

    class Failing(LocalFiles):
        left = 20

        def read(self, name: str) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise LedgerUnavailable("the bucket does not answer")
            return super().read(name)

    found = watched.tick(ledger=Ledger(Failing(watched.root / "ledger"), clock=lambda: NOW))
    assert "the bucket does not answer" in found.skip_message
    assert 0 < len(json.loads(found.cursor)["due"]) < 30
    assert len(json.loads(watched.tick(found.cursor).cursor)["due"]) == 30


def test_the_error_of_a_damaged_date_is_handed_on(watched: Watched) -> None:
    watched.ledger().append_states([pending(date(2026, 11, 16))])

    def broken(day: date) -> Callable[[], None]:
        raise LedgerDamaged(f"{day} is broken")

    ((day, made),) = changed_dates(watched.ledger(), Cursor(), NOW, broken)
    assert (day, str(made)) == (date(2026, 11, 16), "2026-11-16 is broken")


def test_a_strange_file_in_the_ledger_stops_nothing_and_is_named_by_the_standing_check(watched: Watched) -> None:
    watched.ledger().append_states([pending(date(2026, 11, 17), due=NOW + timedelta(hours=1))])
    whole = watched.check()
    assert (whole.level, whole.totals) == (Level.ok, {"recordings_held_in_all": 0, "gb_held_in_all": 0.0})
    strange = watched.root / "ledger" / "recording_states" / "date=202-11-17" / "01JCXXXXXXXXXXXXXXXXXXXXXX.parquet"
    strange.parent.mkdir()
    strange.write_bytes(b"PAR1")
    strange.with_name(f".{'0' * 32}.partial").write_bytes(b"PAR1")  # a killed run of 0.1.0 left it
    assert watched.tick().cursor
    result = watched.check()
    assert (result.level, result.counts["strange_files"]) == (Level.warning, 1)
    assert result.totals == {}, "a sum that lacks a part would look like a loss"
    assert "date=202-11-17" in result.lists["strange_files"]["file"][0]
    assert "1 file in the ledger is not a part of it" in result.sentence


class FakeBucket:
    """Holds, under keys that end in a number, objects whose ETag is another one than when they were archived."""

    def __init__(self, number: int, *, changed_from: int, gone: int = -1) -> None:
        self.number, self.changed_from, self.gone = number, changed_from, gone

    def list_day(self, day: date, *_: object) -> dict[str, Listed]:
        return {f"k{number:03}": Listed(1000, "other") for number in range(self.number)} if day == DAY else {}

    def sha256_of(self, key: str) -> str | None:
        if int(key[1:]) == self.gone:
            return None
        return "f" * 64 if int(key[1:]) < self.changed_from else "0" * 64


def held(number: int, **changes: Any) -> list[RecordingState]:
    return [
        replace(
            archived(
                pending(DAY, name=f"{index:03}"),
                key=f"k{index:03}",
                size=1000,
                sha256="f" * 64,
                duration_s=9.0,
                etag="etag",
                version_id=None,
                warnings=(),
                now=NOW,
                run_id="r",
            ),
            **changes,
        )
        for index in range(number)
    ]


def pulled_whole(ledger: Ledger) -> None:
    for report in LEGACY:
        ledger.append_pull(
            PullRecord(
                report=report,
                day=DAY,
                account_id="1",
                period_start=datetime(2026, 11, 17, tzinfo=UTC),
                period_end=datetime(2026, 11, 18, tzinfo=UTC),
                pulled_at=NOW,
                run_id="r",
                sha256="",
                **NO_ROWS,
            )
        )


def judged(watched: Watched, bucket: FakeBucket, *, run_id: str = "r", later: timedelta = timedelta()) -> CheckResult:
    pulled_whole(watched.ledger())
    settings = VerifySettings(archive_bucket="archive")
    stores = watched.ledger(), cast("Bucket", bucket)
    return every_recording_is_accounted_for(judge_date(*stores, DAY, settings, now=NOW + later, run_id=run_id))


def test_every_object_whose_etag_changed_is_read_again_and_the_counts_are_exact(watched: Watched) -> None:
    watched.ledger().append_states(held(50))
    assert judged(watched, FakeBucket(50, changed_from=50)).level is Level.ok
    found = judged(watched, FakeBucket(50, changed_from=20, gone=5))
    assert found.level is Level.error
    assert (found.counts["object_changed"], found.counts["object_gone"]) == (30, 1)
    assert "Of 50 recordings expected for 2026-11-17, 19 are archived." in found.sentence
    assert "30 were archived, but their keys now hold different objects" in found.sentence


def test_only_the_same_run_within_a_minute_judges_the_same_recordings_without_listing_the_bucket_again(
    watched: Watched,
) -> None:
    watched.ledger().append_states(held(3))
    bucket = FakeBucket(3, changed_from=3)
    assert judged(watched, bucket).level is Level.ok
    bucket.number = 2
    assert judged(watched, bucket, later=timedelta(seconds=59)).level is Level.ok
    for changed in ({"run_id": ""}, {"run_id": "another"}, {"later": timedelta(seconds=60)}):
        bucket.number = 3
        assert judged(watched, bucket).level is Level.ok
        bucket.number = 2
        assert judged(watched, bucket, **changed).counts["object_gone"] == 1, changed
    bucket.number = 4
    assert judged(watched, bucket).level is Level.ok
    watched.ledger().append_states(held(5))
    assert judged(watched, bucket).counts["object_gone"] == 1


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (36, "All 36 recordings expected for 2026-11-17 are archived."),
        (1, "The one recording expected for 2026-11-17 is archived."),
        (0, "No row of 2026-11-17 links to a recording."),
    ],
)
def test_a_whole_date_is_told_of_in_a_sentence_with_a_verb(watched: Watched, number: int, sentence: str) -> None:
    watched.ledger().append_states(held(number))
    assert judged(watched, FakeBucket(number, changed_from=number)).sentence == sentence


def test_every_warning_is_counted_under_its_own_name_and_no_recording_twice(watched: Watched) -> None:
    warnings = ("length_unproven", "channels_4", "channel_1_silent", "channel_2_silent", "mono_segment")
    watched.ledger().append_states(held(2, warnings=warnings))
    found = audio_is_true(watched.ledger(), DAY)
    assert found.level is Level.warning
    assert {"length_unproven": 2, "channels_4": 2, "silent_channel": 2}.items() <= found.counts.items()
    assert "mono_segment" not in found.counts
    assert "2 have the warning `length_unproven`" in found.sentence
    watched.now += timedelta(hours=1)
    watched.ledger().append_states(held(2, warnings=("mono_segment",), written_at=watched.now))
    assert audio_is_true(watched.ledger(), DAY).level is Level.ok


@pytest.mark.parametrize(
    ("uiis", "flagged"), [(("u1", "u2"), 2), (("u1", "U1"), 0), (("", ""), 0), (("", "u2"), 0)], ids=str
)
def test_two_calls_with_the_same_audio_are_named_and_parts_of_one_call_are_not(
    watched: Watched, uiis: tuple[str, str], flagged: int
) -> None:
    watched.ledger().append_states(replace(state, uii=uii) for state, uii in zip(held(2), uiis, strict=True))
    found = audio_is_true(watched.ledger(), DAY)
    assert (found.level is Level.warning, found.counts["same_audio"]) == (flagged > 0, flagged)
    assert ("2 have the same audio as another call's recording" in found.sentence) == (flagged > 0)


def test_a_date_without_recordings_and_one_of_pending_recordings_have_no_wrong_audio(watched: Watched) -> None:
    assert audio_is_true(watched.ledger(), DAY).level is Level.ok
    watched.ledger().append_states([pending(DAY)])
    assert audio_is_true(watched.ledger(), DAY).level is Level.ok

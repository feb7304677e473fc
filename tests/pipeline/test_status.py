"""`ringcx-archive status` and `verify --require-complete`: a date is complete only if nothing is missing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey

from pipelines.archive.proof.manifest import latest_manifest
from pipelines.definitions import build_defs
from pipelines.ledger.states import Status, final
from pipelines.steps.check.verdict import Verdict, sentence_of, worst
from sandbox.faults import Faults, Where
from tests.commands import an_hour_later, run
from tests.pipeline.conftest import MakeWorld, World


@dataclass
class Dates:
    """An archive with a date of each verdict, in the order of the days."""

    world: World
    complete: date
    waiting: date
    gaps: date
    unknown: date

    def ask(self, *options: str, first: date | None = None, last: date | None = None) -> tuple[int, dict[str, Any]]:
        """Run the command; return its exit code and its JSON document."""
        file = Path("status.json")
        around = ["--from", str(first or self.complete), "--to", str(last or first or self.unknown)]
        code = run("status", [*around, "--json", str(file), *options], self.world.s3)
        return code, json.loads(file.read_text())


@pytest.fixture
def dates(make_world: MakeWorld) -> Dates:
    world = make_world(sandbox={"calls_per_day": (3, 3)}, ARCHIVE_RETRY_MINUTES="30", LEDGER_URL="ledger")
    today = datetime.now(UTC).date()
    of = Dates(world, *(today - timedelta(days=back) for back in (5, 4, 3, 2)))
    late = [recording["recording_id"].partition("/")[2] for recording in world.truth(of.waiting)]
    world.sandbox.set_faults(Faults(not_found=Where(paths=(late[len(late) // 2],))))
    for day in (of.complete, of.waiting, of.gaps):
        assert world.run(day).success
    victim = next(state for state in world.states(of.gaps).values() if state.found_on == state.date == of.gaps)
    world.s3.delete_object(Bucket=world.bucket, Key=victim.key)
    return of


def test_each_verdict_is_given_to_the_date_that_deserves_it(dates: Dates, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = dates.ask()
    printed = capsys.readouterr().out
    assert code == 1
    assert (answer["verdict"], answer["format"]) == ("gaps", "ringcx-archive/status/1")
    assert [row["verdict"] for row in answer["dates"]] == ["complete", "waiting", "gaps", "unknown"]
    complete, waiting, gaps, unknown = answer["dates"]
    assert complete["expected"] == complete["held"] > 0
    assert waiting["expected"] == waiting["held"] + waiting["waiting"] == waiting["held"] + 1
    assert datetime.fromisoformat(waiting["next_at"]) > datetime.now(UTC)
    assert gaps["expected"] == gaps["held"] + 1
    assert "no longer in the bucket" in gaps["sentence"]
    # A call over midnight was found by the run of the date before: it says nothing of what the date should hold.
    assert dates.world.states(dates.unknown), "no call is stored under the date that was not pulled"
    assert (unknown["expected"], len(unknown["not_pulled"])) == (None, 2)
    assert "was never pulled" in unknown["sentence"]
    assert "Of 4 dates, 1 has gaps, 1 is unknown, 1 waits for recordings, 1 is complete." in printed
    for row in answer["dates"][1:]:
        assert f"{row['date']}: {row['sentence']}" in printed
    assert next(line.split()[2] for line in printed.splitlines() if line.startswith(str(dates.unknown))) == "?"


def test_a_backfill_of_only_what_is_missing_takes_the_date_that_was_never_pulled(dates: Dates) -> None:
    assert dates.world.states(dates.unknown), "no call is stored under the date that was not pulled"
    defs, days = build_defs(environment=dates.world.environment), [str(dates.waiting), str(dates.unknown)]
    for name in ("recordings", "daily_manifest"):
        partitions = defs.resolve_assets_def(name).partitions_def
        status = dates.world.instance.get_status_by_partition(AssetKey(name), days, partitions)
        assert status is not None
        assert (status[days[0]] is None, status[days[1]]) == (False, None)


def test_exit_codes_and_verify_tell_the_verdicts_apart(
    dates: Dates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for day, code in ((dates.complete, 0), (dates.waiting, 3), (dates.gaps, 1), (dates.unknown, 3)):
        assert dates.ask(first=day)[0] == code
        around = ["--from", str(day), "--to", str(day)]
        assert run("verify", [*around, "--require-complete"], dates.world.s3) == code
    # What is held is as it was sealed, and still something is missing.
    assert run("verify", ["--from", str(dates.waiting), "--to", str(dates.waiting)], dates.world.s3) == 0
    assert dates.ask(first=dates.complete, last=dates.waiting)[0] == 3
    capsys.readouterr()
    file = tmp_path / "verified.json"
    around = ["--from", str(dates.complete), "--to", str(dates.unknown), "--json", str(file)]
    assert run("verify", around, dates.world.s3) == 1
    printed, found = capsys.readouterr().out, json.loads(file.read_text())
    assert [row["verdict"] for row in found["dates"]] == ["complete", "waiting", "gaps", "unknown"]
    assert found["verdict"] == "gaps"
    for row in found["dates"]:
        assert any(line.split()[:2] == [row["date"], row["verdict"]] for line in printed.splitlines())
        assert row["reason"]


def test_a_date_that_was_never_sealed_is_not_complete_to_verify(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(sandbox={"calls_per_day": (2, 2), "crossing_zones": ()})
    day = recent[0]
    assert world.run(
        day, select=["agent_segment_metadata", "global_call_type_detail", "recording_links", "recordings"]
    ).success
    around = ["--from", str(day), "--to", str(day)]
    assert run("status", around, world.s3) == 0
    assert run("verify", [*around, "--require-complete"], world.s3) == 3  # the run may be about to seal it
    assert run("verify", [*around, "--require-complete"], world.s3, clock=an_hour_later) == 1


def test_without_dates_the_command_asks_for_what_the_source_still_keeps_up_to_yesterday(
    dates: Dates, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RINGCX_RETENTION_DAYS", "6")
    assert run("status", [], dates.world.s3) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    today = datetime.now(UTC).date()
    shown = [line for line in lines if line and line[0] in {str(today - timedelta(days=back)) for back in range(9)}]
    assert [line[0] for line in shown] == [str(today - timedelta(days=back)) for back in (5, 4, 3, 2, 1)]
    assert [line[-1] for line in shown] == ["1", "2", "3", "4", "5"], "days left at the source"


def test_what_is_lost_is_counted_by_its_reason_and_a_damaged_date_is_unknown_and_stops_no_other(
    dates: Dates, capsys: pytest.CaptureFixture[str]
) -> None:
    pending = next(state for state in dates.world.states(dates.waiting).values() if state.status is Status.pending)
    lost = final(pending, Status.missing, "not_found", datetime.now(UTC), "by hand")
    dates.world.services().ledger.append_states([lost])
    code, answer = dates.ask(first=dates.waiting)
    assert (code, answer["dates"][0]["lost"]) == (1, {"not_found": 1})
    assert "1 is lost" in answer["dates"][0]["sentence"]
    for part in Path("ledger/recording_states", f"date={dates.waiting}").iterdir():
        part.write_bytes(b"no Parquet")
    code, answer = dates.ask(first=dates.waiting, last=dates.unknown)
    assert [row["verdict"] for row in answer["dates"]] == ["unknown", "gaps", "unknown"]
    assert (code, answer["dates"][0]["held"]) == (1, None)
    damaged = next(
        line for line in capsys.readouterr().out.splitlines() if line.split()[:2] == [str(dates.waiting), "unknown"]
    )
    assert damaged.split()[2:-1] == ["?", "?", "?", "?", "0", "?"]


def test_several_dates_are_as_good_as_the_worst_of_them() -> None:
    assert worst([Verdict.complete, Verdict.waiting, Verdict.unknown]) is Verdict.unknown
    assert worst([Verdict.unknown, Verdict.gaps]) is Verdict.gaps
    assert worst([]) is Verdict.unknown
    assert sentence_of([Verdict.complete]) == "The date is complete."
    assert sentence_of([Verdict.complete] * 3) == "All 3 dates are complete."
    assert sentence_of([Verdict.gaps], 1) == "The date has gaps, with accepted losses."
    # The accepted losses may be on the date that has gaps.
    both = "Of 2 dates, 1 has gaps, 1 is complete; on 1 of the 2 dates, losses are accepted."
    assert sentence_of([Verdict.complete, Verdict.gaps], 1) == both


def test_the_pages_of_a_date_begin_with_its_verdict_and_never_say_what_was_found_while_that_is_unknown(
    make_world: MakeWorld,
) -> None:
    world = make_world(sandbox={"calls_per_day": (3, 3)})
    day = datetime.now(UTC).date() - timedelta(days=3)
    pages = ("recordings", "daily_manifest")
    half = world.run(day, select=["global_call_type_detail", "recording_links", *pages])
    for page in pages:
        metadata = world.metadata(half, page)
        assert next(iter(metadata)) == "verdict"
        assert metadata["verdict"].startswith(f"unknown: It is unknown what {day} should hold: agent_segment_metadata")
        assert "found" not in metadata
        assert metadata["archived"] > 0
    assert sealed(world, day)["totals"]["not_pulled"] == ["agent_segment_metadata"]
    whole = world.run(day)
    for page in pages:
        metadata = world.metadata(whole, page)
        assert metadata["verdict"].startswith("complete: All ")
        assert metadata["found"] == metadata["archived"]
    totals = sealed(world, day)["totals"]
    assert totals["verdict"] == "complete"
    assert totals["found"] == totals["archived"]
    assert world.metadata(world.run(day), "daily_manifest")["manifest_is_new"] is False
    victim = next(state for state in world.states(day).values() if state.date == day)
    world.s3.delete_object(Bucket=world.bucket, Key=victim.key)
    altered = world.run(day)
    for page in pages:
        assert world.metadata(altered, page)["verdict"].startswith("gaps: ")
    assert sealed(world, day)["totals"]["verdict"] == "gaps"


def sealed(world: World, day: date) -> dict[str, Any]:
    manifest = latest_manifest(world.services().bucket, day)
    assert manifest is not None
    return dict(manifest.document)

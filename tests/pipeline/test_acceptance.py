"""Accepted losses: who may accept what, how long it holds, and where it is sealed and shown."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from dagster import DagsterInstance, ExecuteInProcessResult

from pipelines.archive.bucket import Bucket
from pipelines.archive.proof.manifest import latest_manifest
from pipelines.calendar import day_bounds
from pipelines.definitions import build_defs
from pipelines.ledger.files import LocalFiles
from pipelines.ledger.schema import Acceptance, PullRecord
from pipelines.ledger.states import RecordingState, Status, archived, final, reopened, same_recording
from pipelines.ledger.store import Ledger
from pipelines.orchestration.environment import Environment
from pipelines.settings import PlanSettings
from pipelines.steps.check.all_dates import no_overdue_recordings
from pipelines.steps.check.result import Level
from pipelines.steps.check.verdict import DateVerdict, Verdict, every_recording_is_accounted_for, judge_date
from pipelines.steps.seal.acceptance import Decision, DecisionIncomplete, DecisionResult, decide
from pipelines.steps.seal.seal_day import seal_day
from pipelines.steps.verify.certificate import certify
from pipelines.steps.verify.days import Archive, verify_days
from pipelines.steps.verify.objects import Sampling
from pipelines.steps.verify.report import DayResult, Discrepancy
from tests import states
from tests.commands import run
from tests.memory_s3 import MemoryS3

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = date(2026, 11, 18)
NEXT = DAY + timedelta(days=1)
REPORTS = ("agent_segment_metadata", "global_call_type_detail")


def pending(name: str = "a", day: date = DAY, found_on: date = DAY, reason: str | None = None) -> RecordingState:
    changed: dict[str, Any] = {"found_on": found_on, "reason": reason, "next_attempt_at": NOW + timedelta(hours=1)}
    return states.pending(f"1/{name}", day, NOW - timedelta(hours=9), **changed)


def lost(name: str = "a", status: Status = Status.missing, reason: str = "not_found", **where: date) -> RecordingState:
    return final(pending(name, **where), status, reason, NOW - timedelta(hours=8), "r")


class Stores:
    def __init__(self, client: Any, folder: Path, clock: Callable[[], datetime]) -> None:
        name = f"archive-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=name)
        self.client, self.folder, files = client, folder, LocalFiles(folder)
        self.bucket = Bucket(client, name, "")
        self.ledger = Ledger(files, clock=clock)
        self.settings = PlanSettings(
            archive_bucket=name,
            ledger_url=str(folder),
            ringcx_account_ids=("1",),
            archive_start_date=DAY - timedelta(days=9),
        )
        self.now = NOW

    def pulled(self, *days: date) -> None:
        for day in days:
            start, end = day_bounds(day, self.settings.zone)
            for report in REPORTS:
                self.ledger.append_pull(
                    PullRecord(
                        report=report,
                        day=day,
                        account_id="1",
                        period_start=start,
                        period_end=end,
                        pulled_at=NOW,
                        run_id="r",
                        size=1,
                        sha256="s",
                        **dict.fromkeys(("rows", "new", "changed", "unchanged", "vanished", "with_link"), 0),
                    )
                )

    def held(self, name: str, day: date = DAY) -> RecordingState:
        key = f"recordings/date={day}/account_id=1/layout=mono/{name}"
        self.client.put_object(Bucket=self.bucket.name, Key=key, Body=b"RIFF")
        facts = {
            "size": 4,
            "sha256": hashlib.sha256(b"RIFF").hexdigest(),
            "duration_s": 1.0,
            "etag": None,
            "version_id": None,
            "warnings": (),
        }
        return archived(pending(name, day), key=key, now=NOW - timedelta(hours=8), run_id="r", **facts)

    def over_midnight(self, name: str) -> RecordingState:
        """A lost recording of the next day that a row of the day links to."""
        row = {
            "row_key": name,
            "row_hash": name,
            "uii": "u",
            "recording_url": f"https://x.vacd.biz/a?file={name}",
            "call_start_dts": f"{NEXT}T00:10:00.000+0000",
        }
        table = pa.table({column: [text] for column, text in row.items()})
        self.ledger.append_rows(REPORTS[1], DAY, table, account_id="1", pulled_at=NOW, run_id="r")
        return lost(name, day=NEXT)

    def decide(self, *ids: str, **changed: Any) -> DecisionResult:
        decision = Decision(recording_ids=ids, **{"why": "TICKET-1", "accepted_by": "compliance", **changed})
        self.now += timedelta(minutes=1)
        return decide(self.archive(), decision, now=self.now, run_id="command")

    def verdict(self, day: date = DAY) -> DateVerdict:
        return judge_date(self.ledger, self.bucket, day, self.settings, now=self.now)

    def seal(self, day: date = DAY) -> None:
        self.now += timedelta(minutes=1)
        seal_day(self.archive(), day, now=self.now, run_id="seal")

    def manifest(self, day: date = DAY) -> dict[str, Any]:
        found = latest_manifest(self.bucket, day)
        assert found is not None
        return dict(found.document)

    def archive(self) -> Archive:
        return Archive(self.bucket, self.ledger, self.settings, None, lambda: self.now + timedelta(hours=1))

    def verify(self, day: date = DAY) -> tuple[DayResult, set[tuple[str, str]]]:
        found: list[Discrepancy] = []
        (result,) = verify_days(self.archive(), day, day, Sampling(), add=found.append)
        return result, {(discrepancy.kind, discrepancy.subject) for discrepancy in found}

    def command(self, *arguments: str, why: str = "TICKET-1") -> int:
        self.now += timedelta(minutes=1)
        by = [] if "--by" in arguments else ["--by", "compliance"]
        return run("accept", [*arguments, "--why", why, *by], self.client, clock=lambda: self.now)

    def job(self, **config: Any) -> ExecuteInProcessResult:
        self.now += timedelta(minutes=1)
        environment = Environment(clock=lambda: self.now, s3_client=self.client)
        config = {"why": "TICKET-1", "accepted_by": "compliance", **config}
        with DagsterInstance.ephemeral() as instance:
            return (
                build_defs(environment=environment)
                .resolve_job_def("accept_losses")
                .execute_in_process(
                    run_config={"ops": {"decide_on_losses": {"config": config}}},
                    instance=instance,
                    raise_on_error=False,
                )
            )

    def part(self, day: date = DAY) -> Path:
        (part,) = (self.folder / "accepted_losses" / f"date={day}").iterdir()
        return part


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stores:
    made = Stores(MemoryS3(), tmp_path / "ledger", lambda: made.now)
    variables = {
        "ARCHIVE_BUCKET": made.bucket.name,
        "ARCHIVE_START_DATE": str(made.settings.archive_start_date),
        "LEDGER_URL": str(made.folder),
        "RINGCX_ACCOUNT_IDS": "1",
        "RINGCX_API_TOKEN": "token",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return made


def test_an_accepted_loss_makes_the_date_complete_and_every_figure_and_sentence_says_so(stores: Stores) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a"), lost("b", Status.denied, "link_refused"), stores.held("c")])
    before = stores.verdict()
    assert (before.verdict, before.lost, before.accepted) == (Verdict.gaps, {"not_found": 1, "link_refused": 1}, {})
    half = stores.decide("1/a")
    assert half.sentence == "1 loss was accepted."
    assert stores.verdict().verdict is Verdict.gaps
    decided = stores.decide("1/b", why="TICKET-2", accepted_by="head of compliance")
    found = stores.verdict()
    assert (found.verdict, found.lost, found.counts["lost"], found.counts["accepted_losses"]) == ("complete", {}, 0, 2)
    sentence = f"Of 3 recordings expected for {DAY}, 1 is archived and 2 losses are accepted "
    sentence += "(1 `not_found`: the source does not have it; 1 `link_refused`: its link must not be requested)."
    assert found.sentence == sentence
    assert {day: verdict.sentence for day, verdict in decided.verdicts.items()} == {DAY: sentence}
    check = every_recording_is_accounted_for(found)
    assert (check.level, check.sentence, check.counts["accepted_losses"]) == (Level.ok, sentence, 2)
    rows = check.lists["accepted_losses"].to_dict("records")
    assert [(row["recording"], row["accepted_by"], row["why"]) for row in rows] == [
        ("1/a", "compliance", "TICKET-1"),
        ("1/b", "head of compliance", "TICKET-2"),
    ]
    assert check.lists["sample"].empty
    standing = no_overdue_recordings(
        stores.ledger,
        stores.settings,
        busy=(),
        now=stores.now,  # type: ignore[arg-type]
    )
    assert (standing.counts["lost"], standing.counts["accepted_losses"]) == (0, 2)
    assert "2 losses were accepted." in standing.sentence


def test_the_sentence_on_a_refused_link_says_why_and_names_the_settings_that_decide(stores: Stores) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a", Status.rejected, "link_refused:host_not_allowed")])
    assert stores.verdict().sentence == (
        f"Of 1 recording expected for {DAY}, 0 are archived. "
        "1 is lost (1 `link_refused:host_not_allowed`: its link's host is not allowed). "
        "Once RINGCX_MEDIA_HOSTS (or RINGCX_API_URL) allows a refused link, the next run of the date fetches it."
    )


def test_waiting_recordings_still_wait_next_to_an_accepted_loss(stores: Stores) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a"), pending("b")])
    stores.decide("1/a")
    found = stores.verdict()
    assert found.verdict is Verdict.waiting
    assert found.sentence.startswith(
        f"Of 2 recordings expected for {DAY}, 0 are archived and 1 loss is accepted (1 `not_found`: the source "
        "does not have it). 1 waits for its"
    )


def test_a_conflict_can_be_accepted_and_is_no_conflict_in_the_counts_any_more(stores: Stores) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a", Status.rejected, "conflict")])
    assert stores.verdict().counts["conflicts"] == 1
    assert stores.decide("1/a").refused == []
    assert (stores.verdict().verdict, stores.verdict().counts["conflicts"]) == (Verdict.complete, 0)


def test_what_is_no_final_loss_is_refused_with_its_state_and_stops_no_other(stores: Stores) -> None:
    stores.pulled(DAY)
    late = replace(pending("late"), next_attempt_at=NOW - timedelta(hours=2))
    gone = stores.held("gone")
    stores.client.delete_object(Bucket=stores.bucket.name, Key=gone.key)
    held = stores.held("held")
    name = same_recording(pending("name"), held, NOW, "r")
    unpulled = lost("unpulled", day=NEXT, found_on=NEXT)
    others = [pending("waits"), late, held, gone, name, unpulled]
    finals = [lost("lost"), lost("rejected", Status.rejected, "html_body"), lost("denied", Status.denied, "refused")]
    stores.ledger.append_states([*others, *finals])
    ids = ["waits", "late", "held", "gone", "name", "unpulled", "never-seen", "lost", "rejected", "denied"]
    decided = stores.decide(*(f"1/{name}" for name in ids))
    assert {state.recording_id for state in decided.written} == {"1/lost", "1/rejected", "1/denied"}
    sentences = {sentence.split(" ")[0]: sentence for sentence in decided.refused if sentence.startswith("1/")}
    assert sentences["1/waits"] == "1/waits is pending, not lost: its next attempt is at 2026-11-25 13:00 UTC."
    assert sentences["1/late"] == "1/late is pending, not lost: its next attempt was due at 2026-11-25 10:00 UTC."
    assert sentences["1/held"].startswith("1/held is archived: there is no loss to accept.")
    assert "If its object is gone or altered" in sentences["1/gone"]
    assert sentences["1/name"] == "1/name is another name for 1/held: give that id."
    assert sentences["1/unpulled"].startswith(
        f"1/unpulled is missing, but {NEXT} is unknown: agent_segment_metadata of"
    )
    assert [sentence for sentence in decided.refused if not sentence.startswith("1/")] == [
        "The ledger has no recording '1/never-seen'."
    ]
    assert decided.sentence == "3 losses were accepted; 7 were refused."
    assert stores.verdict().counts["object_gone"] == 1


def test_losses_are_accepted_by_date_and_reason_and_others_are_not(stores: Stores) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a"), lost("b"), lost("c", reason="silent"), pending("d", reason="not_found")])
    stores.ledger.append_states([lost("of-next", day=NEXT, found_on=NEXT), stores.over_midnight("midnight")])
    decided = stores.decide(days=(DAY, NEXT), reason="not_found")
    assert [state.recording_id for state in decided.written] == ["1/a", "1/b", "1/midnight"]
    assert [sentence.split(".")[0] for sentence in decided.refused] == [f"No decision can be recorded for {NEXT}"]
    assert set(decided.verdicts) == {DAY, NEXT}
    again = stores.decide(days=(DAY,), reason="not_found")
    assert (again.written, again.unchanged, again.refused) == ([], 3, [])
    assert again.sentence == "0 losses were accepted; 3 had been accepted before."
    (none,) = stores.decide(days=(DAY,), reason="link_refused").refused
    assert none.startswith(f"No recording of {DAY} is lost for the reason `link_refused`")
    assert none.endswith("; other reasons found: 3 `not_found`, 1 `silent`.")


def test_a_revoked_acceptance_is_a_gap_again_and_both_decisions_stay_in_the_ledger(stores: Stores) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a"), lost("b")])
    (never,) = stores.decide("1/a", revoke=True).refused
    assert never == "The loss of 1/a was never accepted: there is nothing to revoke."
    stores.decide("1/a", "1/b")
    assert stores.verdict().verdict is Verdict.complete
    revoked = stores.decide("1/a", revoke=True, why="TICKET-3", accepted_by="auditor")
    assert revoked.sentence == "1 acceptance was revoked."
    assert revoked.verdicts[DAY].verdict is Verdict.gaps
    assert [acceptance.accepted_by for acceptance in stores.verdict().accepted.values()] == ["compliance"]
    assert stores.decide("1/a", revoke=True).unchanged == 1
    by_reason = stores.decide(days=(DAY,), reason="not_found", revoke=True)
    assert ([state.recording_id for state in by_reason.written], by_reason.unchanged) == (["1/b"], 1)
    assert stores.verdict().counts["lost"] == 2
    assert len(list((stores.folder / "accepted_losses").rglob("*.parquet"))) == 3
    assert stores.decide("1/a").written
    assert stores.verdict().counts["lost"] == 1


def test_the_last_decision_counts_also_where_the_clock_is_behind(stores: Stores) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a")])
    stores.decide("1/a")
    for revoke, verdict in ((True, Verdict.gaps), (False, Verdict.complete), (True, Verdict.gaps)):
        stores.now -= timedelta(minutes=4)
        decided = stores.decide("1/a", revoke=revoke)
        assert len(decided.written) == 1
        assert decided.verdicts[DAY].verdict is stores.verdict().verdict is verdict


def test_a_loss_is_not_accepted_while_its_other_source_was_not_tried(stores: Stores) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a"), same_recording(pending("b"), lost("a"), NOW, "r"), lost("c")])
    decided = stores.decide("1/a", "1/c")
    assert [line.recording_id for line in decided.written] == ["1/c"]
    assert decided.refused == [f"1/a is missing, but its other source has not been tried yet: run {DAY}, then accept."]
    assert stores.verdict().verdict is Verdict.gaps


def test_a_date_that_only_links_to_the_recording_is_sealed_again_too(stores: Stores) -> None:
    stores.pulled(DAY, NEXT)
    stores.over_midnight("midnight")
    stores.ledger.append_states([lost("midnight", day=NEXT, found_on=NEXT)])
    stores.seal(DAY)
    assert stores.manifest()["totals"]["verdict"] == "gaps"
    decided = stores.decide("1/midnight")
    assert stores.manifest()["totals"]["verdict"] == "complete"
    assert decided.verdicts.keys() == {DAY, NEXT}
    stores.decide("1/midnight", revoke=True)
    assert stores.manifest()["totals"]["verdict"] == "gaps"
    assert "verdict_differs" not in {kind for kind, _ in stores.verify()[1]}


@pytest.mark.parametrize("day", ["9999-12-31", "0001-01-01"])
def test_a_job_of_a_date_that_cannot_be_ends_in_a_sentence(stores: Stores, day: str) -> None:
    ran = stores.job(date=day, reason="not_found")
    (failure,) = [event.step_failure_data for event in ran.all_events if event.is_step_failure]
    assert failure.user_failure_data.description.startswith(f"{day} is before 2000-01-01 or in the future")


@pytest.mark.parametrize("change", ["reason", "status", "pending", "lost again", "archived"])
def test_an_acceptance_ends_when_the_recording_changes(stores: Stores, change: str) -> None:
    stores.pulled(DAY)
    state = lost("a")
    stores.ledger.append_states([state])
    stores.decide("1/a")
    again = reopened(state, "retry_requested", NOW, "r2")
    again = replace(again, next_attempt_at=NOW + timedelta(days=1))
    later = {
        "reason": [replace(state, reason="html_body", written_at=NOW)],
        "status": [replace(state, status=Status.denied, written_at=NOW)],
        "pending": [again],
        "lost again": [again, final(again, Status.missing, "not_found", NOW, "r2")],
        "archived": [replace(stores.held("a"), written_at=NOW)],
    }
    stores.ledger.append_states(later[change])
    found = stores.verdict()
    verdicts = {"pending": Verdict.waiting, "archived": Verdict.complete}
    assert found.verdict is verdicts.get(change, Verdict.gaps)
    assert (found.accepted, found.counts["accepted_losses"]) == ({}, 0)
    stores.seal()
    assert "accepted_losses" not in stores.manifest()
    if found.verdict is Verdict.gaps:
        assert stores.decide("1/a").written
        assert stores.verdict().verdict is Verdict.complete


def test_acceptances_are_sealed_and_a_manifest_without_any_is_as_it_always_was(stores: Stores) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a")])
    stores.seal()
    first = stores.manifest()
    assert "accepted_losses" not in first
    assert "accepted_losses" not in first["totals"]
    assert stores.verify()[1] == set()
    stores.decide("1/a")
    second = stores.manifest()
    assert (second["number"], second["totals"]["verdict"], second["totals"]["accepted_losses"]) == (2, "complete", 1)
    assert second["accepted_losses"] == [
        {
            "recording_id": "1/a",
            "status": "missing",
            "reason": "not_found",
            "accepted_by": "compliance",
            "at": stores.now.isoformat(timespec="microseconds"),
            "why": "TICKET-1",
        }
    ]
    stores.seal()
    assert stores.manifest()["number"] == 2, "the same content"
    result, doubts = stores.verify()
    assert (result.verdict, result.accepted_losses, doubts) == (Verdict.complete, 1, set())
    stores.decide("1/a", revoke=True)
    third = stores.manifest()
    assert (third["number"], third["content_sha256"]) == (3, first["content_sha256"])
    result, doubts = stores.verify()
    assert (result.verdict, result.accepted_losses, doubts) == (Verdict.gaps, 0, set())


def test_the_loss_of_a_call_over_midnight_is_sealed_under_both_dates(stores: Stores, tmp_path: Path) -> None:
    stores.pulled(DAY, NEXT)
    stores.ledger.append_states([stores.over_midnight("a")])
    for day in (DAY, NEXT):
        stores.seal(day)
        assert stores.manifest(day)["totals"]["verdict"] == "gaps"
    assert set(stores.decide("1/a").verdicts) == {DAY, NEXT}
    for day in (DAY, NEXT):
        assert stores.manifest(day)["totals"]["verdict"] == "complete", stores.verdict(day).sentence
        result, doubts = stores.verify(day)
        assert (result.verdict, result.accepted_losses, doubts) == (Verdict.complete, 1, set())
    assert "accepted_losses" not in stores.manifest(DAY)
    assert len(stores.manifest(NEXT)["accepted_losses"]) == 1
    certificate, other = certify(stores.archive(), DAY, NEXT)
    assert (certificate["counts"]["accepted_losses"], certificate["accepted_losses"]) == (1, [])
    assert (certificate["accepted_elsewhere"], other["accepted_elsewhere"]) == ({"1/a": str(NEXT)}, {})
    page = tmp_path / "certificate.html"
    options = ["--date", str(DAY), "--html", str(page)]
    assert run("certificate", options, stores.client, clock=lambda: stores.now) == 0
    assert f"<span class=data>1/a</span> is on the certificate of {NEXT}" in page.read_text()


def test_a_date_is_not_certified_while_what_it_stored_under_another_date_is_gone(
    stores: Stores, capsys: pytest.CaptureFixture[str]
) -> None:
    stores.pulled(DAY, NEXT)
    stores.over_midnight("midnight")
    midnight = stores.held("midnight", day=NEXT)
    stores.ledger.append_states([stores.held("a"), midnight])
    stores.seal(DAY)
    stores.seal(NEXT)
    assert stores.verify()[0].verdict == "complete"
    stores.client.delete_object(Bucket=stores.bucket.name, Key=midnight.key)
    gone = "1 was archived and is no longer in the bucket"
    (certificate,) = certify(stores.archive(), DAY, DAY)
    assert (certificate["verdict"], certificate["discrepancies"]) == ("gaps", [])
    assert f"Of 2 recordings expected for {DAY}, 1 is archived. {gone}" in certificate["sentence"]
    around = ["--from", str(DAY), "--to", str(DAY), "--require-complete"]
    assert run("verify", around, stores.client, clock=lambda: stores.now) == 1
    assert "The date has gaps." in capsys.readouterr().out
    # The other date is not as it was sealed, and nothing says that it holds everything.
    (certificate,) = certify(stores.archive(), NEXT, NEXT)
    assert [discrepancy["kind"] for discrepancy in certificate["discrepancies"]] == ["object_missing"]
    assert (certificate["verdict"], certificate["counts"]["held"]) == ("gaps", 0)
    assert gone in certificate["sentence"]
    assert "All " not in certificate["sentence"]


@pytest.mark.parametrize("tampering", ["edited", "removed", "added", "damaged"])
def test_verify_names_an_acceptance_that_was_tampered_with(stores: Stores, tampering: str) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a")])
    stores.decide("1/a")
    part = stores.part()
    name = part.relative_to(stores.folder).as_posix()
    key = f"manifests/date={DAY}/manifest-1.json"
    stale = ("stale", key)
    forged = Acceptance(
        recording_id="1/a",
        day=DAY,
        status="missing",
        reason="not_found",
        epoch=0,
        accepted=True,
        accepted_by="somebody else",
        why="TICKET-1",
        at=NOW,
        run_id="command",
    )
    if tampering == "edited":
        part.unlink()
        stores.ledger.append_acceptances([forged])
        stores.part().rename(part)
        expected = {("ledger_part_altered", name), stale}
    elif tampering == "removed":
        part.unlink()
        expected = {("ledger_part_removed", name), stale}
    elif tampering == "added":
        stores.ledger.append_acceptances([replace(forged, at=NOW + timedelta(days=1))])
        (added,) = set(part.parent.iterdir()) - {part}
        expected = {("unattested", added.relative_to(stores.folder).as_posix()), stale}
    else:
        part.write_bytes(b"no Parquet")
        expected = {("ledger_part_altered", name)}
    result, doubts = stores.verify()
    assert doubts == expected
    assert result.verdict is Verdict.gaps


def test_a_damaged_part_that_no_attestation_names_is_named_and_stops_no_other_date(stores: Stores) -> None:
    stores.pulled(DAY, NEXT)
    stores.ledger.append_states([lost("a"), lost("b", day=NEXT, found_on=NEXT)])
    stores.seal()
    folder = stores.folder / "accepted_losses" / f"date={DAY}"
    folder.mkdir(parents=True)
    name = f"accepted_losses/date={DAY}/01KA8GM800ZZZZZZZZZZZZZZZZ.parquet"
    (stores.folder / name).write_bytes(b"no Parquet")
    assert ("ledger_part_altered", name) in stores.verify()[1]
    decided = stores.decide("1/a", "1/b")
    assert [state.recording_id for state in decided.written] == ["1/b"]
    (refused,) = decided.refused
    undecided = f"No decision was recorded for 1 recording of {DAY}"
    assert refused.startswith(f"{undecided}: the ledger's part {name} cannot be read")
    assert name in stores.decide(days=(DAY,), reason="not_found").refused[0]


def test_two_acceptances_at_once_both_count_and_the_last_sealing_has_both(stores: Stores) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost(str(number)) for number in range(4)])
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(stores.decide, "1/0", "1/1", "1/2")
        second = pool.submit(stores.decide, "1/2", "1/3", why="TICKET-2")
        assert [len(first.result().refused), len(second.result().refused)] == [0, 0]
    assert (stores.verdict().verdict, stores.verdict().counts["accepted_losses"]) == (Verdict.complete, 4)
    assert stores.manifest()["totals"]["accepted_losses"] == 4
    assert stores.verify()[1] == set()


def test_the_certificate_lists_who_accepted_what_when_and_why(stores: Stores) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a"), stores.held("b")])
    stores.decide("1/a")
    (certificate,) = certify(stores.archive(), DAY, DAY)
    assert certificate["verdict"] == "complete"
    assert "1 loss is accepted" in certificate["sentence"]
    assert certificate["accepted_losses"] == stores.manifest()["accepted_losses"]


def test_a_decision_says_what_why_and_by_whom() -> None:
    for wrong in (
        {"recording_ids": ("1/a",), "why": " "},
        {"recording_ids": ("1/a",), "accepted_by": ""},
        {},
        {"days": (DAY,)},
        {"reason": "not_found"},
        {"recording_ids": ("1/a",), "days": (DAY,), "reason": "not_found"},
        {"recording_ids": ("1/a",), "reason": "not_found"},
    ):
        with pytest.raises(DecisionIncomplete):
            Decision(**{"why": "TICKET-1", "accepted_by": "compliance", **wrong})


def test_a_manifest_whose_list_of_accepted_losses_has_another_form_is_damaged(stores: Stores) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a")])
    stores.decide("1/a")
    key = f"manifests/date={DAY}/manifest-1.json"
    body = json.loads(stores.bucket.get_bytes(key))
    body["accepted_losses"][0]["why"] = "something else"
    stores.client.put_object(
        Bucket=stores.bucket.name,
        Key=key,
        Body=json.dumps(body, sort_keys=True, separators=(",", ":")).encode() + b"\n",
    )
    assert ("manifest_altered", key) in stores.verify()[1]


def test_command_and_job_write_the_same_lines_and_print_the_verdict_of_each_date(
    stores: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a"), lost("b")])
    file = tmp_path / "accepted.json"
    assert stores.command("1/a", "--by", "compliance", "--json", str(file)) == 0
    printed = capsys.readouterr().out
    assert f"{DAY}  gaps: Of 2 recordings" in printed
    once = "The table of calls has the new verdicts once you materialize `calls`, or run the dates, again."
    assert printed.endswith(f"1 loss was accepted.\n{once}\n")
    document = json.loads(file.read_text())
    assert (document["format"], document["refused"]) == ("ringcx-archive/acceptance/1", [])
    assert [(line["recording_id"], line["why"]) for line in document["written"]] == [("1/a", "TICKET-1")]
    assert [(row["date"], row["verdict"]) for row in document["dates"]] == [(str(DAY), "gaps")]
    ran = stores.job(date=str(DAY), reason="not_found")
    assert ran.success
    lines = stores.ledger.acceptances([DAY])
    plain = {"recording_id": "", "run_id": "", "at": NOW}
    assert replace(lines["1/a"], **plain) == replace(lines["1/b"], **plain)
    assert lines["1/b"].run_id == ran.run_id
    assert lines["1/a"].run_id.startswith("accept-")
    (output,) = [event for event in ran.all_events if event.is_successful_output]
    metadata = {name: value.value for name, value in output.step_output_data.metadata.items()}
    assert metadata["sentence"] == "1 loss was accepted; 1 had been accepted before."
    assert "`complete`" in metadata["dates"]
    assert "2 losses are accepted" in metadata["dates"]
    (check,) = ran.get_asset_check_evaluations()
    assert (check.check_name, check.partition) == ("every_recording_is_accounted_for", str(DAY))
    assert (check.passed, check.description) == (True, stores.verdict().sentence)
    assert "`TICKET-1`" in str(check.metadata["accepted_losses"].value)
    assert stores.command("--from", str(DAY), "--to", str(DAY), "--reason", "not_found", "--revoke") == 0
    assert stores.verdict().counts["lost"] == 2
    assert {line.accepted for line in stores.ledger.acceptances([DAY]).values()} == {False}


def test_command_and_job_do_the_rest_when_something_is_refused_and_say_so(
    stores: Stores, capsys: pytest.CaptureFixture[str]
) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a"), lost("b"), pending("c")])
    assert stores.command("1/c", "1/a") == 1
    printed = capsys.readouterr().out
    assert "refused: 1/c is pending, not lost" in printed
    assert "1 loss was accepted; 1 was refused.\n" in printed
    ran = stores.job(recording_ids=["1/c", "1/b"])
    assert not ran.success
    (failure,) = [event.step_failure_data for event in ran.all_events if event.is_step_failure]
    assert "1 loss was accepted; 1 was refused. 1/c is pending" in failure.user_failure_data.description
    (check,) = ran.get_asset_check_evaluations()
    assert check.description == stores.verdict().sentence
    assert set(stores.verdict().accepted) == {"1/a", "1/b"}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--date", str(DAY)],
        ["1/a", "--date", str(DAY), "--reason", "not_found"],
        ["--date", str(DAY), "--from", str(DAY), "--reason", "not_found"],
        ["--from", str(DAY), "--reason", "not_found"],
        ["1/a", "--by", " "],
        ["1/a", "--by", "a\nb"],
        ["1/a\udcff"],
        ["--date", str(DAY), "--reason", "x" * 501],
    ],
)
def test_a_wrong_command_ends_with_2_and_a_wrong_job_with_a_sentence_and_nothing_is_written(
    stores: Stores, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert stores.command(*arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (stores.folder / "accepted_losses").exists()


def test_the_command_seals_no_verdict_without_knowing_the_accounts(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RINGCX_ACCOUNT_IDS")
    assert stores.command("1/a") == 2
    assert capsys.readouterr().err.startswith("RINGCX_ACCOUNT_IDS is not set")


def test_a_job_whose_config_is_wrong_fails_with_a_sentence(stores: Stores) -> None:
    for config in ({}, {"date": "yesterday", "reason": "not_found"}, {"recording_ids": ["1/a"], "why": ""}):
        ran = stores.job(**config)
        (failure,) = [event.step_failure_data for event in ran.all_events if event.is_step_failure]
        assert failure.user_failure_data.description.endswith(".")


def test_status_and_verify_and_the_certificate_say_that_losses_were_accepted(
    stores: Stores, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a"), stores.held("b")])
    stores.decide("1/a", why="<b>TICKET</b>")
    around = ["--from", str(DAY), "--to", str(DAY)]
    file = tmp_path / "answer.json"
    assert run("status", [*around, "--json", str(file)], stores.client, clock=lambda: stores.now) == 0
    printed, answer = capsys.readouterr().out, json.loads(file.read_text())
    assert (answer["dates"][0]["accepted_losses"], answer["dates"][0]["lost"]) == (1, {})
    assert answer["sentence"] == "The date is complete, with accepted losses."
    header, row = printed.splitlines()[:2]
    assert header.split()[-3:] == ["accepted", "days", "left"]
    assert (row.split()[1], row.split()[-2]) == ("complete", "1")
    assert run("verify", [*around, "--require-complete", "--json", str(file)], stores.client) == 0
    printed, answer = capsys.readouterr().out, json.loads(file.read_text())
    assert "as sealed, with 1 accepted loss\n" in printed
    assert (answer["dates"][0]["accepted_losses"], answer["dates"][0]["lost"]) == (1, 0)
    assert "the ledger counts 0 lost and 0 pending" in printed
    page = tmp_path / "certificate.html"
    options = ["--html", str(page), "--json", str(file)]
    assert run("certificate", [*around, *options], stores.client, clock=lambda: stores.now) == 0
    (certificate,) = json.loads(file.read_text())["dates"]
    assert certificate["accepted_losses"] == stores.manifest()["accepted_losses"]
    html = page.read_text()
    assert "<h3>Accepted losses</h3>" in html
    assert "<td class=data>&lt;b&gt;TICKET&lt;/b&gt;</td>" in html
    assert html.index("Accepted losses") < html.index("Check it yourself")


def test_no_loss_is_accepted_on_a_date_whose_report_came_without_rows(stores: Stores) -> None:
    stores.pulled(DAY)
    row = pa.table({"row_key": ["a"], "row_hash": ["a"], "uii": ["20261118050000000001"]})
    stores.ledger.append_rows(REPORTS[0], DAY, row, account_id="1", pulled_at=NOW, run_id="r")
    (pull,) = stores.ledger.pulls(REPORTS[0], DAY)
    stores.ledger.append_pull(replace(pull, rows=1, pulled_at=NOW + timedelta(minutes=1)))
    stores.ledger.append_states([lost("a")])
    (refused,) = stores.decide("1/a").refused
    assert refused.startswith(f"1/a is missing, but {DAY} is unknown: {REPORTS[1]} of account 1 was empty")
    assert not stores.ledger.acceptances([DAY])

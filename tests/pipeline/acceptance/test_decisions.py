"""Who may accept which loss, and how long it holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pytest

from pipelines.ledger.states import Status, final, reopened, same_recording
from pipelines.steps.check.all_dates import no_overdue_recordings
from pipelines.steps.check.result import Level
from pipelines.steps.check.verdict import Verdict, every_recording_is_accounted_for
from pipelines.steps.seal.acceptance import Decision, DecisionIncomplete
from tests.pipeline.acceptance.conftest import DAY, NEXT, NOW, REPORTS, Stores, lost, pending


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
        now=stores.now,
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

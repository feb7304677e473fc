"""Accepted losses are sealed in the manifest, verified, and shown on the certificate."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.ledger.schema import Acceptance
from pipelines.steps.check.verdict import Verdict
from pipelines.steps.verify.certificate import certify
from tests.commands import run
from tests.pipeline.acceptance.conftest import DAY, NEXT, NOW, Stores, lost


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


def test_the_certificate_lists_who_accepted_what_when_and_why(stores: Stores) -> None:
    stores.pulled(DAY)
    stores.ledger.append_states([lost("a"), stores.held("b")])
    stores.decide("1/a")
    (certificate,) = certify(stores.archive(), DAY, DAY)
    assert certificate["verdict"] == "complete"
    assert "1 loss is accepted" in certificate["sentence"]
    assert certificate["accepted_losses"] == stores.manifest()["accepted_losses"]


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

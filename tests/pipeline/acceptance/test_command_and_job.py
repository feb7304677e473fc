"""`ringcx-archive accept` and the job `accept_losses`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pipeline.acceptance.conftest import DAY, NOW, Stores, lost, pending


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


@pytest.mark.parametrize("day", ["9999-12-31", "0001-01-01"])
def test_a_job_of_a_date_that_cannot_be_ends_in_a_sentence(stores: Stores, day: str) -> None:
    ran = stores.job(date=day, reason="not_found")
    (failure,) = [event.step_failure_data for event in ran.all_events if event.is_step_failure]
    assert failure.user_failure_data.description.startswith(f"{day} is before 2000-01-01 or in the future")

"""`ringcx-archive find`, and what it writes."""

from __future__ import annotations

import csv
import getpass
import io
import json
import socket
from datetime import date
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.definitions import build_defs
from pipelines.steps.calls.csv_file import csv_cell, write_csv
from pipelines.steps.calls.numbers import NumberQuery, to_e164
from pipelines.steps.calls.table import CALLS_SCHEMA
from pipelines.wording import reason_in_words
from tests.commands import run
from tests.pipeline.conftest import MakeWorld


def test_find_shows_writes_and_counts_what_it_finds(
    make_world: MakeWorld, recent: list[date], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world()
    assert world.run(recent[0]).success
    around = ["--from", str(recent[0]), "--to", str(recent[0])]
    files = ["--json", str(tmp_path / "found.json"), "--csv", str(tmp_path / "found.csv")]
    capsys.readouterr()
    assert run("find", [*around, *files], world.s3) == 0
    printed, found = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())
    assert found["format"] == "ringcx-archive/find/1"
    assert found["sentence"] in printed
    assert all(call["uii"] in printed for call in found["calls"])
    reasons = {call["reason"] for call in found["calls"] if call["reason"]}
    assert reasons
    assert all(reason_in_words(reason) in printed for reason in reasons)
    with (tmp_path / "found.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["uii"] for line in lines] == [call["uii"] for call in found["calls"]]
    assert {line["ani"][:2] for line in lines if line["ani"].startswith(("+", "'"))} <= {"'+"}
    chosen = found["calls"][0]
    assert run("find", [*around, "--uii", chosen["uii"], "--limit", "1", *files], world.s3) == 0
    again = json.loads((tmp_path / "found.json").read_text())
    assert [call["uii"] for call in again["calls"]] == [chosen["uii"]]
    assert run("find", [*around, "--agent", "nobody"], world.s3) == 1


def test_find_does_not_call_a_date_without_its_table_empty(
    make_world: MakeWorld, recent: list[date], capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world()
    assert world.run(recent[1]).success
    world.s3.delete_object(Bucket=world.bucket, Key=f"calls/date={recent[1]}/calls.parquet")
    around = ["--from", str(recent[0]), "--to", str(recent[1])]
    capsys.readouterr()
    assert run("find", around, world.s3) == 3
    assert f"Not searched, or only in part: {recent[0]} to {recent[1]} (2 dates)" in capsys.readouterr().out
    assert run("find", ["--from", str(recent[1]), "--to", str(recent[0])], world.s3) == 2


def test_a_date_that_was_never_pulled_is_not_searched_although_its_calls_were_materialized_alone(
    make_world: MakeWorld, recent: list[date], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world, day = make_world(), recent[0]
    around = ["--from", str(day), "--to", str(day)]
    assert "Calls may be missing" in world.metadata(world.run(day, select=["calls"]), "calls")["summary"]
    capsys.readouterr()
    assert run("find", [*around, "--json", str(tmp_path / "found.json")], world.s3) == 3
    assert f"Not searched, or only in part: {day} (1 date)" in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["not_indexed"] == [str(day)]
    package = ["--why", "case", "--output", str(tmp_path / "case.zip")]
    assert run("export", [*around, *package], world.s3) == 3
    assert "missing" not in world.metadata(world.run(day), "calls")["summary"]
    assert run("find", around, world.s3) == 0
    assert run("find", [*around, "--agent", "nobody"], world.s3) == 1


@pytest.mark.parametrize("pulled", [[], ["agent_segment_metadata"]])
def test_a_date_of_which_a_report_failed_is_searched_only_in_part(
    make_world: MakeWorld, recent: list[date], pulled: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    world, day = make_world(), recent[0]
    around = ["--from", str(day), "--to", str(day)]
    # The last four are what the sensor `archive_despite_failed_report` runs.
    assert world.run(day, select=[*pulled, "recording_links", "recordings", "daily_manifest", "calls"]).success
    index = build_defs(environment=world.environment).resolve_job_def("calls_index")
    assert index.execute_in_process(instance=world.instance).success
    capsys.readouterr()
    assert run("find", [*around, "--uii", "none"], world.s3) == 3
    assert f"Not searched, or only in part: {day} (1 date)" in capsys.readouterr().out
    assert run("find", around, world.s3) == 3
    assert ("No call was found." in capsys.readouterr().out) == (not pulled)
    assert world.run(day).success
    assert run("find", [*around, "--uii", "none"], world.s3) == 1


def test_a_damaged_table_is_an_error_that_says_what_to_do(
    make_world: MakeWorld, recent: list[date], capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world()
    assert world.run(recent[0]).success
    world.s3.put_object(Bucket=world.bucket, Key=f"calls/date={recent[0]}/calls.parquet", Body=b"PAR1 no more")
    capsys.readouterr()
    assert run("find", ["--from", str(recent[0]), "--to", str(recent[0])], world.s3) == 2
    assert f"materialize `calls` for {recent[0]} again" in capsys.readouterr().err
    assert world.metadata(world.run(recent[0], select=["calls"]), "calls")["is_new"] is True
    assert run("find", ["--from", str(recent[0]), "--to", str(recent[0])], world.s3) == 0


def test_a_search_is_in_the_access_log_or_does_not_happen(
    make_world: MakeWorld,
    recent: list[date],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = make_world()
    assert world.run(recent[0]).success
    around = ["--from", str(recent[0]), "--to", str(recent[0])]
    assert run("find", [*around, "--number", "602-555-0142"], world.s3) in {0, 1}
    log = tmp_path / "access.json"
    assert run("access", ["--user", getpass.getuser(), "--json", str(log)], world.s3) == 0
    (entry,) = json.loads(log.read_text())["entries"]
    assert entry["action"] == "search"
    assert entry["address"] == socket.gethostname()
    assert entry["details"] == {"first": str(recent[0]), "last": str(recent[0]), "number": "602-555-0142"}
    capsys.readouterr()
    refusal = ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "PutObject")
    monkeypatch.setattr(world.s3, "put_object", Mock(side_effect=refusal))
    assert run("find", around, world.s3) == 2
    printed = capsys.readouterr()
    assert "access/date=" in printed.err
    assert printed.out == ""


@given(st.text(st.one_of(st.sampled_from("=+-@＝＋－＠;\t\r\n \xa0\ufeffa'"), st.characters())))
@example("Smith; =HYPERLINK(1)")
@example("\xa0=1+1")
def test_no_cell_of_a_csv_is_a_formula_also_for_who_splits_at_semicolons(text: str) -> None:
    cell = str(csv_cell(text))
    for part in cell.split(";"):
        assert not part.strip(" \n\x0b\x0c\xa0\ufeff").startswith(tuple("=+-@＝＋－＠\t\r"))
    assert cell.replace("'", "") == text.replace("\x00", "").replace("'", "")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_a_csv_reads_back_as_the_calls_that_were_written(text: str) -> None:
    row = {**dict.fromkeys(CALLS_SCHEMA.names), "date": date(2026, 11, 21), "notes": text, "warnings": []}
    file = io.StringIO(newline="")
    write_csv(pa.Table.from_pylist([row], CALLS_SCHEMA), file)
    (back,) = csv.DictReader(io.StringIO(file.getvalue(), newline=""))
    assert (back["date"], back["notes"]) == ("2026-11-21", str(csv_cell(text)))


FORMATS = (
    "+1{0}{1}{2}",
    "1{0}{1}{2}",
    "{0}{1}{2}",
    "({0}) {1}-{2}",
    "{0}.{1}.{2}",
    " +1 {0} {1} {2} ",
    "1-{0}-{1}-{2}",
)


@given(st.integers(200, 999), st.integers(200, 999), st.integers(0, 9999))
def test_a_number_is_one_number_in_every_format(area: int, exchange: int, line: int) -> None:
    written = [form.format(area, exchange, f"{line:04d}") for form in FORMATS]
    whole = f"+1{area}{exchange}{line:04d}"
    assert {to_e164(text, "US") for text in written} == {whole}
    assert {NumberQuery.of(text, "US").e164 for text in written} == {whole}
    part = NumberQuery.of(f"{exchange}-{line:04d}", "US")
    assert part.e164 is None
    assert part.digits in whole


@pytest.mark.parametrize("text", ["", "anonymous", "Restricted", "sip:ava@example.com", "911", None, "1" * 60])
def test_what_is_no_number_has_no_e164(text: str | None) -> None:
    assert to_e164(text, "US") is None

"""The table `calls` and its search: what the sandbox said of a call is found again by each of its sides."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from pipelines.archive.proof.manifest import latest_manifest
from pipelines.definitions import build_defs
from pipelines.steps.calls import search as search_module
from pipelines.steps.calls.search import CallSearch, Query
from pipelines.steps.calls.table import CALLS_FILE_SCHEMA, CALLS_SCHEMA
from sandbox.faults import Faults, Where
from tests.commands import run as run_command
from tests.pipeline.conftest import MakeWorld, World

DOCS = Path(__file__).parents[2] / "docs" / "storage.md"


def search_of(world: World) -> CallSearch:
    services = world.services()
    return CallSearch(services.bucket, services.settings)


def rows(table: pa.Table) -> list[dict[str, Any]]:
    assert table.schema.equals(CALLS_SCHEMA)
    return table.to_pylist()


def test_each_recording_has_one_row_with_its_state_and_manifest_and_each_unrecorded_call_has_one_with_the_reason(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(sandbox={"calls_per_day": (8, 9)})
    for day in recent:
        assert world.run(day).success
    for day in recent:
        found = rows(search_of(world).find(Query(first=day, last=day), limit=1000))
        states = world.services().ledger.states([day])
        manifest = latest_manifest(world.services().bucket, day)
        kept = {row["recording_id"]: row for row in found if row["recording_id"]}
        assert kept.keys() == states.keys()
        assert len(found) == len(kept) + sum(row["state"] == "none" for row in found)
        for recording_id, state in states.items():
            row = kept[recording_id]
            assert (row["state"], row["key"], row["sha256"], row["size"]) == (
                state.status,
                state.key,
                state.sha256,
                state.size,
            )
            assert (row["manifest_number"], row["manifest_sha256"]) == (manifest.number, manifest.sha256)
            assert row["verdict"] == manifest.document["totals"]["verdict"]
            assert row["ani"]
            assert row["dnis"]
            assert row["agent_id"]
            assert row["queue_name"]
            assert row["direction"] in {"inbound", "outbound"}
        without = [row for row in found if row["recording_id"] is None]
        assert without, "the sandbox has abandoned calls"
        # Recording is not switched on for every queue: an answered call can lack one, too.
        assert {row["reason"] for row in without} <= {"no_link:abandon", "no_link:noanswer", "no_link:answer"}
        assert not {row["uii"] for row in without} & {recording["uii"] for recording in world.truth(*recent)}


def test_what_stays_the_same_is_not_written_again(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world()
    first = world.metadata(world.run(recent[0]), "calls")
    assert first["is_new"] is True
    assert next(iter(first)) == "summary"
    again = world.metadata(world.run(recent[0]), "calls")
    assert (again["is_new"], again["dagster/partition_row_count"]) == (False, first["dagster/partition_row_count"])


def test_a_recording_that_is_not_held_is_found_with_its_state_and_why(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(faults=Faults(not_found=Where(share=1.0)))
    assert world.run(recent[0]).success
    found = rows(search_of(world).find(Query(first=recent[0], last=recent[0], state="pending")))
    assert found
    assert {(row["state"], row["reason"], row["key"]) for row in found} == {("pending", "not_found", None)}


def test_a_call_is_found_by_each_thing_that_is_known_of_it(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(sandbox={"calls_per_day": (8, 9)})
    first, last = recent[0], recent[-1]
    for day in recent:
        assert world.run(day).success
    search = search_of(world)
    everything = rows(search.find(Query(first=first, last=last), limit=1000))
    assert [row["date"] for row in everything] == sorted((row["date"] for row in everything), reverse=True)
    call = next(row for row in everything if row["layout"] == "stereo" and row["notes"] and row["disposition"])
    for asked in (
        {"number": call["ani"]},
        {"number": call["dnis_e164"]},
        {"number": call["ani_e164"][-7:]},
        {"agent": call["agent_id"]},
        {"agent": call["agent_login"].upper()},
        {"agent": call["agent_name"][1:].upper()},
        {"queue": call["queue_id"]},
        {"queue": call["queue_name"][:-1]},
        {"account": call["account_id"]},
        {"direction": call["direction"]},
        {"uii": f"'{call['uii']}"},
        {"disposition": call["disposition"][1:-1].upper()},
        {"notes": call["notes"][2:]},
        {"state": "archived"},
        {"shortest_s": call["segment_s"], "longest_s": call["segment_s"]},
    ):
        found = rows(search.find(Query(first=first, last=last, **asked), limit=1000))
        assert call in found, f"not found by {list(asked)}"
    assert not rows(search.find(Query(first=first, last=last, number="+1 999 555 0000 00")))
    assert not rows(search.find(Query(first=first, last=last, agent="nobody of that name")))


def test_a_call_over_midnight_is_one_call_on_both_of_its_dates(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(sandbox={"crossing_zones": ("UTC",)})
    assert world.run(recent[1]).success
    assert world.run(recent[0]).success
    search = search_of(world)
    both = [row for day in recent[:2] for row in rows(search.find(Query(first=day, last=day), limit=1000))]
    dates: dict[str, set[date]] = {}
    for row in both:
        dates.setdefault(row["uii"], set()).add(row["date"])
    over = next(uii for uii, days in dates.items() if len(days) == 2)
    account = next(row["account_id"] for row in both if row["uii"] == over)
    for day in recent[:2]:
        found = rows(search.call(day, account, over))
        assert {row["date"] for row in found} == set(recent[:2])
        assert all(row["agent_id"] for row in found)


def test_a_date_without_its_table_is_named_and_not_taken_for_a_quiet_one(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world()
    assert world.run(recent[1]).success
    search = search_of(world)
    query = Query(first=recent[0], last=recent[2])
    assert search.not_searched(query, search.files(query)) == [recent[0], recent[2]]
    one_day = Query(first=recent[1], last=recent[1])
    assert search.not_searched(one_day, search.files(one_day)) == []


def test_the_documented_queries_run_and_the_documented_table_has_the_columns(
    make_world: MakeWorld, recent: list[date], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world(faults=Faults(not_found=Where(share=0.3)))
    assert world.run(recent[0]).success
    demo = tmp_path / "data" / "demo" / "s3" / "ringcx-archive"
    for key in world.objects("calls/"):
        (demo / key).parent.mkdir(parents=True)
        (demo / key).write_bytes(world.s3.get_object(Bucket=world.bucket, Key=key)["Body"].read())
    section = DOCS.read_text("utf-8").partition("\n## Calls\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["sql", "python", "python", "sql"]
    number = next(row["ani_e164"] for row in rows(search_of(world).find(Query(first=recent[0], last=recent[0]))))
    with duckdb.connect(":memory:") as database:
        assert database.sql(blocks[0][1].replace("+16025550142", number)).fetchall()
    for _, code in blocks[1:3]:
        capsys.readouterr()
        exec(code, {})
        assert len(capsys.readouterr().out.splitlines()) > 1
    names = {pa.string(): "string", pa.float64(): "double", pa.int64(): "bigint", pa.int8(): "tinyint"}
    names |= {pa.timestamp("us", "UTC"): "timestamp", pa.list_(pa.string()): "array<string>"}
    documented = re.findall(r"`?(\w+)`? ([a-z<>]+)[,)]", blocks[3][1].partition("PARTITIONED")[0].partition("(")[2])
    assert documented == [(field.name, names[field.type]) for field in CALLS_FILE_SCHEMA]
    table = section.partition("| column | type |")[2]
    assert all(f"`{name}`" in table for name in CALLS_FILE_SCHEMA.names)


def test_an_index_finds_what_a_search_without_it_finds_also_when_it_is_old_or_damaged(
    make_world: MakeWorld, recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "_WORTH_AN_INDEX", 1)
    world = make_world()
    first, last = recent[0], recent[-1]
    for day in recent[:2]:
        assert world.run(day).success
    everything = rows(search_of(world).find(Query(first=first, last=last), limit=1000))
    call, other = everything[0], next(row for row in reversed(everything) if row["agent_id"])
    asked = [
        {"number": call["ani"]},
        {"number": call["ani_e164"][-6:]},
        {"uii": call["uii"]},
        {"recordings": (other["recording_id"], "1/no-such")},
        {"agent": other["agent_id"].partition(";")[0]},
        {"agent": other["agent_login"][:-1]},
        {"agent": other["agent_name"][1:4]},
        {"number": "+1 999 000 0000"},
        {"agent": "nobody"},
    ]

    def answers() -> list[list[dict[str, Any]]]:
        search = search_of(world)
        return [rows(search.find(Query(first=first, last=last, **query), limit=1000)) for query in asked]

    without = answers()
    assert [bool(found) for found in without[:5]] == [True] * 5
    run = (
        build_defs(environment=world.environment)
        .resolve_job_def("calls_index")
        .execute_in_process(instance=world.instance)
    )
    assert run.success
    months = sorted({f"{row['date']:%Y-%m}" for row in everything})
    keys = [f"calls/_index/month={month}/keys.parquet" for month in months]
    assert sorted(world.objects("calls/_index/")) == keys
    assert answers() == without
    again = search_of(world).find(Query(first=first, last=last, uii=everything[-1]["uii"]), limit=1000)
    assert everything[-1] in rows(again)
    # A date that came after the index is read itself.
    assert world.run(last).success
    newest = rows(search_of(world).find(Query(first=last, last=last), limit=1000))[0]
    assert newest in rows(search_of(world).find(Query(first=first, last=last, uii=newest["uii"])))
    assert newest in rows(search_of(world).find(Query(first=first, last=last, number=newest["ani"]), limit=1000))
    for key in keys:
        world.s3.put_object(Bucket=world.bucket, Key=key, Body=b"PAR1 damaged PAR1")
    assert newest in rows(search_of(world).find(Query(first=first, last=last, uii=newest["uii"])))
    assert run_command("verify", ["--from", str(first), "--to", str(last)], world.s3) == 0

"""A date too large to be held at once is archived portion by portion, and nobody can tell from what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from dagster import AssetKey
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.archive.keys import apart_key, recording_key
from pipelines.definitions import build_defs
from pipelines.ledger.files import LocalFiles
from pipelines.ledger.states import RecordingState, Status, archived, final
from pipelines.ledger.store import Ledger
from pipelines.ringcx.links import HostList
from pipelines.steps.due import work_of
from pipelines.steps.known import portions_of
from pipelines.steps.links import AllowedLinks
from pipelines.steps.retry import reopen
from pipelines.steps.standing import Standing
from sandbox.faults import Faults, Where

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = date(2026, 11, 20)
OLD = date(2026, 3, 2)
ALLOWED = AllowedLinks(HostList(["good.example.com"]))
UP_TO_RECORDINGS = ["agent_segment_metadata", "global_call_type_detail", "recording_links", "recordings"]
PROOF: dict[str, Any] = {"size": 1, "sha256": "0" * 64, "duration_s": 1.0, "etag": "e", "version_id": None}


def a_state(name: str, **changes: Any) -> RecordingState:
    known: dict[str, Any] = {
        "recording_id": f"1/{name}",
        "account_id": "1",
        "uii": "",
        "layout": "mono",
        "source": "global_call_type_detail",
        "date": DAY,
        "status": Status.pending,
        "next_attempt_at": NOW,
        "run_id": "before",
        "written_at": NOW - timedelta(days=1),
        "link": f"https://good.example.com/?file=1/{name}",
        "found_on": DAY,
        "first_seen_at": NOW - timedelta(days=1),
    }
    return RecordingState(**known | changes)


def held(state: RecordingState, key: str) -> RecordingState:
    return archived(state, key=key, **PROOF, warnings=(), now=NOW, run_id="now")


def plain(state: RecordingState) -> str:
    return recording_key("", DAY, "1", "mono", state.recording_id)


@settings(max_examples=60, deadline=None)
@given(
    folders=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz")), unique=True, min_size=1),
    before=st.data(),
    most=st.integers(1, 30),
)
def test_recordings_of_one_file_name_get_keys_of_their_own_in_whichever_portions_they_are(
    tmp_path_factory: pytest.TempPathFactory, folders: list[tuple[str, str]], before: st.DataObject, most: int
) -> None:
    ledger = Ledger(LocalFiles(tmp_path_factory.mktemp("ledger")), clock=lambda: NOW)
    ledger.most_lines = most
    states = [a_state(f"{folder}/{name}.WAV") for folder, name in folders]
    ledger.append_states(states)
    # Of each name at most one lies there under the plain key, as an earlier run left it.
    ours = before.draw(st.sets(st.sampled_from(states)))
    taken = {plain(one): one for one in ours}
    ledger.append_states(held(one, key) for key, one in taken.items())
    keys = {one.recording_id: key for key, one in taken.items()}
    for work in work_of(portions_of(ledger, DAY, ()), "", ALLOWED, now=NOW, run_id="now"):
        for one, key in work.due:
            assert one.recording_id not in keys
            assert key in {plain(one), apart_key(plain(one), one.recording_id)}
            keys[one.recording_id] = key
        ledger.append_states(held(one, key) for one, key in work.due)
    assert keys.keys() == {one.recording_id for one in states}
    assert len(set(keys.values())) == len(states)
    assert {plain(one) for one in states} <= set(keys.values())


def test_nothing_of_a_portion_is_held_while_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(LocalFiles(tmp_path), clock=lambda: NOW)
    ledger.append_states(a_state(f"{number:06d}-a-name-that-is-not-short.WAV") for number in range(10_000))
    before = pa.total_allocated_bytes()
    (whole,) = work_of(portions_of(ledger, DAY, ()), "", ALLOWED, now=NOW, run_id="now")
    takes = pa.total_allocated_bytes() - before
    assert len(whole.due) == 10_000
    del whole
    ledger.most_lines = 1000
    held: list[int] = []
    current = Ledger.current

    def watched(ledger: Ledger, *arguments: Any) -> pa.Table:
        held.append(pa.total_allocated_bytes() - before)
        return current(ledger, *arguments)

    monkeypatch.setattr(Ledger, "current", watched)
    for work in work_of(portions_of(ledger, DAY, ()), "", ALLOWED, now=NOW, run_id="now"):
        assert pa.total_allocated_bytes() - before < takes / 4
        del work
    assert len(held) == 10
    assert max(held) < takes / 40


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["pending", "missing", "denied", "archived", "other date"]), max_size=40),
    most=st.integers(1, 50),
)
def test_how_the_recordings_stand_is_the_same_in_portions_as_in_one(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], most: int
) -> None:
    ledger = Ledger(LocalFiles(tmp_path_factory.mktemp("ledger")), clock=lambda: NOW)
    for number, kind in enumerate(kinds):
        state = a_state(f"{number:03d}.WAV", next_attempt_at=NOW + timedelta(minutes=number))
        match kind:
            case "archived":
                state = held(state, plain(state))
            case "other date":
                state = replace(state, date=DAY + timedelta(days=1))
            case "missing" | "denied":
                state = final(state, Status(kind), f"because {number % 2}", NOW, "before")
        ledger.append_states([state])

    def standing() -> Standing:
        found = Standing(DAY)
        for portion in portions_of(ledger, DAY, {DAY + timedelta(days=1)}):
            found.add(portion.known)
        return found

    whole = standing()
    ledger.most_lines = most
    parts = standing()
    assert parts.by_status == whole.by_status
    assert parts.of_other_dates == whole.of_other_dates == kinds.count("other date")
    assert parts.by_status.total() == len(kinds)
    lines = [sorted(map(str, one.reasons().to_pylist())) for one in (parts, whole)]
    assert lines[0] == lines[1]


def test_every_final_recording_is_reopened_once_and_a_named_one_too(tmp_path: Path) -> None:
    ledger = Ledger(LocalFiles(tmp_path), clock=lambda: NOW)
    ledger.most_lines = 10
    gone = [final(a_state(f"{number:03d}.WAV"), Status.missing, "not_found", NOW, "before") for number in range(40)]
    bad = [
        final(replace(a_state(f"bad{number}.WAV"), link="https://bad.example.com/"), Status.missing, "x", NOW, "before")
        for number in range(3)
    ]
    kept = held(a_state("held.WAV"), "k")
    ledger.append_states([*gone, *bad, kept])
    named = [gone[7].recording_id, bad[1].recording_id, kept.recording_id]
    retried = reopen(ledger, DAY, (), all_final=True, recording_ids=named, allowed=ALLOWED, now=NOW, run_id="now")
    assert (retried.fresh, retried.refused) == (len(gone) + 1, len(bad))
    states = ledger.states([DAY])
    assert {one.epoch for one in states.values() if one.status is Status.pending} == {1}
    assert {key for key, one in states.items() if one.status is not Status.pending} == {one.recording_id for one in bad}


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "most_lines", 6)


@pytest.mark.usefixtures("few_at_a_time")
def test_a_run_in_portions_archives_every_recording_and_says_so_of_the_whole_date(
    world: Callable[..., Any], recent: list[date]
) -> None:
    it = world()
    day = recent[0]
    result = it.run(day)
    assert result.success, it.failures(result)
    logs = [one.user_message for one in it.instance.all_logs(result.run_id)]
    logged = [text for text in logs if "recordings known" in text]
    assert len(logged) > 2, "it was taken in portions"
    assert [text.partition(":")[0] for text in logged] == [
        f"portion {number} of {len(logged)}" for number in range(1, len(logged) + 1)
    ]
    states = it.states(day)
    truth = it.truth(day)
    assert {one.status for one in states.values()} == {Status.archived}
    objects = it.objects(f"recordings/date={day}/")
    assert {one.key: one.sha256 for one in states.values()} == objects
    assert sorted(one["sha256"] for one in truth) == sorted(objects.values())
    told = it.metadata(result, "recordings")
    assert (told["found"], told["archived"], told["archived_now"]) == (told["found"],) * 3
    assert told["found"] - told["of_other_dates"] == len(states)
    it.sandbox.reset()
    again = it.run(day)
    assert again.success
    assert it.sandbox.counters()["requests"].get("media", 0) == 0
    assert it.metadata(again, "recordings")["archived"] == told["archived"]


@pytest.mark.usefixtures("few_at_a_time")
def test_what_lies_in_the_bucket_is_adopted_in_every_portion(
    world: Callable[..., Any], recent: list[date], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = world(LEDGER_URL="ledger-one")
    day = recent[0]
    assert it.run(day, select=UP_TO_RECORDINGS).success
    before = it.objects()
    monkeypatch.setenv("LEDGER_URL", "ledger-two")  # one that was lost: everything is there to be adopted
    it.sandbox.reset()
    result = it.run(day, select=UP_TO_RECORDINGS)
    assert result.success
    told = it.metadata(result, "recordings")
    assert told["adopted_now"] == told["archived_now"] == told["found"] > 6
    assert it.sandbox.counters()["requests"].get("media", 0) == 0
    assert it.objects() == before


@pytest.mark.usefixtures("few_at_a_time")
def test_a_defect_in_the_first_portion_stops_no_other(world: Callable[..., Any], recent: list[date]) -> None:
    it = world()
    day = recent[0]
    assert it.run(day, select=UP_TO_RECORDINGS[:-1]).success
    first = min(it.states(day))

    def breaking(params: dict[str, Any], **_: Any) -> None:
        if params["url_path"].endswith(first.rpartition("/")[2]):
            raise ZeroDivisionError("a defect of ours")

    it.s3.meta.events.register("before-call.s3.PutObject", breaking)
    try:
        result = it.run(day, select=["recordings"])
    finally:
        it.s3.meta.events.unregister("before-call.s3.PutObject", breaking)
    assert not result.success
    states = it.states(day)
    assert (states[first].status, states[first].reason) == (Status.pending, "defect")
    assert {one.status for key, one in states.items() if key != first} == {Status.archived}


@pytest.mark.usefixtures("few_at_a_time")
def test_final_ones_of_all_portions_are_counted_and_retried_when_asked(world: Callable[..., Any]) -> None:
    it = world(faults=Faults(not_found=Where(paths=("*-session-*-stereo.WAV",))), sandbox={"calls_per_day": (8, 8)})
    it.run_until_final(OLD)
    first = it.runs[-1]
    assert first.success, it.failures(first)
    told = it.metadata(first, "recordings")
    assert told["missing"] > 6
    assert told["missing"] + told["archived"] == told["found"]
    (lost,) = [row for row in told["not_held"].records if row.data["state"] == "missing"]
    assert lost.data["recordings"] == told["missing"]
    it.sandbox.set_faults(Faults())
    job = build_defs(services=it.resource).resolve_job_def("archive_day")
    second = job.execute_in_process(
        partition_key=OLD.isoformat(),
        instance=it.instance,
        asset_selection=[AssetKey("recordings")],
        run_config={"ops": {"recordings": {"config": {"retry_final": True}}}},
    )
    retold = it.metadata(second, "recordings")
    assert retold["reopened_now"] == retold["archived_now"] == told["missing"]
    assert retold["archived"] == retold["found"] == told["found"]

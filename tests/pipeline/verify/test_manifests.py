"""`ringcx-archive verify` names manifests and catalogs that were altered, removed, swapped or are out of date."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipelines.ledger.states import RecordingState
from sandbox.faults import Faults, Where
from tests.commands import an_hour_later, run
from tests.copies import Copies
from tests.pipeline.conftest import MakeWorld
from tests.pipeline.verify.conftest import ARCHIVE_PREFIX, DAYS, FIRST, LAST, MIDDLE, TODAY, Copy, edited


@pytest.mark.parametrize("which", [0, -1])
def test_a_removed_manifest_is_named_first_or_last(copy: Copy, which: int) -> None:
    day = MIDDLE
    key = copy.manifests(day)[which]
    copy.delete(key)
    assert (str(day), "manifest_removed", key) in copy.doubts()
    assert {doubt["date"] for doubt in copy.result["doubts"]} == {str(day)}


def test_all_manifests_of_a_date_removed_is_named(copy: Copy) -> None:
    keys = copy.manifests(MIDDLE)
    for key in keys:
        copy.delete(key)
    found = copy.doubts()
    assert {(str(MIDDLE), "manifest_removed", key) for key in keys} <= found
    assert (str(MIDDLE), "never_sealed", str(MIDDLE)) in found


EDITS: dict[str, Callable[[dict[str, Any]], None]] = {
    "an entry dropped": lambda manifest: manifest["entries"].pop(),
    "an entry added": lambda manifest: manifest["entries"].append({**manifest["entries"][-1], "recording_id": "~"}),
    "a size": lambda manifest: manifest["entries"][0].update(size=1),
    "a state": lambda manifest: manifest["entries"][0].update(status="missing", reason="not_found"),
    "a total": lambda manifest: manifest["totals"].update(archived=10_000),
    "the time": lambda manifest: manifest.update(sealed_at="2026-01-01T00:00:00.000000+00:00"),
    "the run": lambda manifest: manifest.update(run_id="forged"),
    "the chain": lambda manifest: manifest.update(previous_sha256="0" * 64),
    "the day before": lambda manifest: manifest.update(
        previous_day={"date": str(FIRST), "number": 7, "sha256": "0" * 64}
    ),
    "a hostile chain": lambda manifest: manifest.update(previous_day={"date": [], "number": "x"}),
    "ids that are numbers": lambda manifest: manifest.update(
        entries=[entry | {"recording_id": at} for at, entry in enumerate(manifest["entries"])]
    ),
    "entries that are no objects": lambda manifest: manifest.update(entries=[1]),
    "a size in words": lambda manifest: manifest["entries"][0].update(size="much"),
    "nonsense": lambda manifest: manifest.update(
        entries=[{"recording_id": "\ud800", "status": ["archived"], "size": 1 << 80}]
    ),
}


@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
def test_every_edit_of_a_manifest_is_named(copy: Copy, which: int) -> None:
    key = copy.manifests(MIDDLE)[which]
    body = copy.get(key)
    plain = {"a size", "the chain", "nonsense"}
    unnoticed = []
    for name, edit in EDITS.items():
        # With its own hash made to fit the content, as somebody would who knows the format; three also plainly.
        for hashed in (True, False) if name in plain else (True,):
            copy.put(key, edited(body, edit, hashed=hashed))
            code = run("verify", ["--from", str(MIDDLE), "--to", str(MIDDLE)], copy.client, clock=an_hour_later)
            output = copy.capsys.readouterr().out
            if code != 1 or f"  {MIDDLE}  manifest_altered: {key} " not in output:
                unnoticed.append((name, hashed, code, output))
    assert unnoticed == []


def test_totals_that_are_not_the_sums_of_the_entries_are_named_whatever_attests_them(copy: Copy) -> None:
    key = copy.manifests(MIDDLE)[-1]
    body = copy.get(key)
    for name in ("archived", "bytes", "found"):
        copy.put(key, edited(body, lambda document, name=name: document["totals"].update({name: 10_000}), hashed=True))
        assert (str(MIDDLE), "totals_wrong", key) in copy.doubts()
        assert f"are not the sums of its entries ({name})" in copy.sentences(key)


@pytest.mark.parametrize("value", [[], {}, ["x"], 5])
def test_a_catalog_hash_of_another_type_is_named_and_hides_nothing(copy: Copy, value: object) -> None:
    key = copy.manifests(MIDDLE)[-1]
    copy.put(key, edited(copy.get(key), lambda head: head.update({"catalog_sha256": value}), hashed=False))
    assert "catalog_stale" in {kind for _, kind, _ in copy.doubts()}


def test_a_date_whose_verdict_a_damaged_part_of_another_date_hides_is_not_good(
    copy: Copy, sample: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGCX_ACCOUNT_IDS", f"{sample.variables['RINGCX_ACCOUNT_IDS']},15300009")  # never pulled
    for key in [key for key in copy.keys("ledger/recording_states/") if f"date={LAST}/" in key]:
        copy.put(key, copy.get(key)[:-1])
    assert copy.verify(first=MIDDLE, last=MIDDLE) == 1
    assert copy.result["good"] is False
    assert "could not be verified completely: The ledger's part" in copy.sentences(str(MIDDLE))


def test_renumbered_and_swapped_manifests_are_named(copy: Copy) -> None:
    day = MIDDLE
    first, second = copy.manifests(day)[:2]
    first_body, second_body = copy.get(first), copy.get(second)
    copy.put(first, second_body)
    copy.put(second, first_body)
    found = copy.doubts()
    assert {(str(day), "manifest_altered", first), (str(day), "manifest_altered", second)} <= found
    copy.put(first, first_body)
    copy.put(second, second_body)
    last = copy.manifests(day)[-1]
    beyond = last.replace(f"-{len(copy.manifests(day))}.json", "-9.json")
    copy.put(beyond, copy.get(last))
    assert (str(day), "manifest_altered", beyond) in copy.doubts()


def test_a_date_sealed_before_its_last_change_is_stale(copy: Copy) -> None:
    ledger = copy.ledger()
    recording = copy.held(MIDDLE)[0]
    later = datetime.now(UTC) + timedelta(minutes=1)
    changed = {name: getattr(recording, name) for name in RecordingState.__slots__} | {
        "epoch": 1,
        "written_at": later,
        "warnings": ("duration_differs",),
    }
    ledger.append_states([RecordingState(**changed)])
    assert {kind for _, kind, _ in copy.doubts()} == {"stale", "unattested"}
    assert "run the date again" in copy.sentences(copy.manifests(MIDDLE)[-1])


def test_a_catalog_that_is_gone_altered_or_another_dates_is_named(copy: Copy) -> None:
    first, middle, last = (f"{ARCHIVE_PREFIX}catalog/date={day}/recordings.parquet" for day in DAYS)
    body = copy.get(last)
    copy.delete(first)
    copy.put(middle, body)
    copy.put(last, body[:-1] + b"X")
    assert copy.doubts() == {
        (str(day), "catalog_stale", key) for day, key in zip(DAYS, (first, middle, last), strict=True)
    }


def test_dates_run_backwards_are_proved_since_a_run_seals_the_next_day_again(
    make_world: MakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    scout = make_world()
    for back in range(3, 12):
        before, day = TODAY - timedelta(days=back), TODAY - timedelta(days=back - 1)
        assert scout.run(
            before, select=["agent_segment_metadata", "global_call_type_detail", "recording_links"]
        ).success
        if scout.states(day):  # a leg that begins after midnight is found by the day before
            break
    assert scout.states(day)
    # Its first pull has no links, so the day itself is sealed empty; only the day before then learns of that leg.
    world = make_world(faults=Faults(late_links=Where(share=1.0, first=1)))
    assert world.run(day).success
    assert world.run(before).success
    manifests = [key for key in world.objects("manifests/") if f"date={day}/" in key]
    assert len(manifests) == 2
    assert run("verify", ["--from", str(before), "--to", str(day)]) == 0, capsys.readouterr().out

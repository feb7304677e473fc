"""The access log: what is written stays as it is, is found again, and is shown by the command."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.archive.bucket import Bucket
from pipelines.archive.keys import access_prefix
from pipelines.compliance.access_log import Access, AccessLog, DamagedAccess
from tests.commands import run

AT = datetime(2026, 11, 22, 23, 59, tzinfo=UTC)
DAY = date(2026, 11, 22)


def entry(minutes: int = 0, **fields: object) -> Access:
    given = {"user": "ava", "address": "203.0.113.9", "action": "play", "account_id": "1", "uii": "u1"} | fields
    return Access(at=AT + timedelta(minutes=minutes), **given)


def test_entries_are_read_as_they_were_written_in_the_order_of_time(bucket: Bucket) -> None:
    log = AccessLog(bucket)
    written = [
        entry(2, recording_id="1/a.WAV", from_s=0.0, to_s=60.0),
        entry(0, action="search", account_id="", uii="", details={"number": "+1 602"}),
        entry(1, action="download", recording_id="1/a.WAV", why="complaint"),
    ]
    for each in written:
        log.record(each)
    assert list(log.read(DAY, DAY + timedelta(days=1))) == [written[1], written[2], written[0]]
    assert list(log.read(DAY, DAY)) == [written[1]]


def test_the_entries_of_a_call_are_found_without_reading_the_others(bucket: Bucket) -> None:
    log = AccessLog(bucket)
    mine, others = entry(), entry(uii="u2")
    log.record(mine)
    key = log.record(others)
    bucket.put(key, b"damaged", content_type="application/json")
    assert list(log.read(DAY, DAY, call=("1", "u1"))) == [mine]


def test_an_entry_with_a_name_that_no_clock_gives_is_named(bucket: Bucket) -> None:
    key = f"{access_prefix(bucket.prefix, DAY)}{'Z' * 26}.json"
    bucket.put(key, b"{}", content_type="application/json")
    assert list(AccessLog(bucket).read(DAY, DAY)) == [DamagedAccess(at=datetime(2026, 11, 22, tzinfo=UTC), key=key)]


@pytest.mark.parametrize(
    "fields",
    [
        b"damaged",
        b"[]",
        {"details": []},
        {"details": {"number": 602}},
        {"from_s": "x"},
        {"from_s": 1.0},
        {"from_s": 10**400, "to_s": 1.0},
        {"from_s": 1.0, "to_s": float("nan")},
        {"user": 5},
        {"why": None},
        {"at": "2026-11-22T23:59:00"},
        {"action": "nothing"},
        {"more": "fields"},
    ],
)
def test_a_damaged_entry_is_named_and_hides_no_other(
    bucket: Bucket, fields: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = AccessLog(bucket)
    before, after = entry(-2), entry(0, action="view")
    log.record(before)
    key = log.record(entry(-1))
    log.record(after)
    body = fields if isinstance(fields, bytes) else json.dumps(json.loads(bucket.get_bytes(key)) | fields).encode()
    bucket.put(key, body, content_type="application/json")
    damaged = DamagedAccess(at=AT - timedelta(minutes=1), key=key)
    assert list(log.read(DAY, DAY)) == [before, damaged, after]
    monkeypatch.setenv("ARCHIVE_BUCKET", bucket.name)
    monkeypatch.setenv("ARCHIVE_PREFIX", bucket.prefix)
    assert run("access", ("--user", "ava"), bucket._client, clock=lambda: AT + timedelta(hours=2)) == 1
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert f"{key} is a damaged or altered entry" in shown.err
    assert "3 entries from 2026-10-24 to 2026-11-23, 1 damaged." in shown.err
    assert run("access", ("--user", "nobody"), bucket._client, clock=lambda: AT + timedelta(hours=2)) == 1
    assert f"{key} is a damaged or altered entry" in capsys.readouterr().err


def test_no_two_entries_have_one_key_and_no_key_names_anybody(bucket: Bucket) -> None:
    log = AccessLog(bucket)
    keys = {log.record(entry()) for _ in range(20)}
    assert len(keys) == 20
    assert not [key for key in keys if "ava" in key or "u1" in key]


def test_the_command_shows_what_was_done_with_a_recording_and_by_whom(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("ARCHIVE_BUCKET", bucket.name)
    monkeypatch.setenv("ARCHIVE_PREFIX", bucket.prefix)
    log = AccessLog(bucket)
    log.record(entry(recording_id="1/a.WAV", from_s=0.0, to_s=60.0))
    log.record(entry(recording_id="1/b.WAV", user="otto\x1b[31m"))

    def shown(*arguments: str) -> list[str]:
        assert run("access", arguments, bucket._client, clock=lambda: AT + timedelta(hours=2)) == 0
        return capsys.readouterr().out.splitlines()

    assert shown("--recording", "1/a.WAV") == ["2026-11-22 23:59:00  ava  203.0.113.9  play  1/a.WAV  0-60 s"]
    (line,) = shown("--recording", "1/b.WAV")
    assert "\x1b" not in line
    assert len(shown("--call", "u1")) == 2
    assert shown("--user", "nobody") == []
    shown("--user", "ava", "--json", str(tmp_path / "entries.json"))
    document = json.loads((tmp_path / "entries.json").read_text())
    assert (document["entries"][0]["to_s"], document["damaged"]) == (60.0, [])
    assert document["entries"][0]["at"] == AT.isoformat(timespec="milliseconds")
    assert shown("--from", "2026-11-23", "--to", "2026-11-23") == []

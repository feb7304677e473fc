"""Exports on the page: who may, of what, with which traces, and that half a download looks like none."""

from __future__ import annotations

import csv
import io
import json
import threading
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageUnavailable
from pipelines.browser.app import Browser
from pipelines.compliance.access_log import AccessLog
from pipelines.evidence.verify import verify
from tests.browser.site import ACCOUNT, DAY, PASSWORD, SALES, SUPPORT, Site, break_at, fields_of, path_of, tone
from tests.browser.test_in_chromium import serving

WHY = {"why": "case 4711"}
OTHER = "2026112219154001516000000009"


@pytest.fixture
def full(site: Site) -> Site:
    """A call of two legs of the sales team, one of another team, and one without a recording."""
    site.key = Ed25519PrivateKey.generate()
    site.add(tone(0.3, 300, 500))
    site.add(tone(0.2, 400), layout="mono", agent_channel=None)
    site.add(tone(0.2, 600), uii=OTHER, agent_id=SUPPORT, agent_name="Sam Support", queue_id="9")
    site.add(None, uii="2026112219154001516000000002")
    site.seal()
    return site


def call_of(row: dict[str, Any]) -> dict[str, str]:
    return {"day": str(DAY), "account": ACCOUNT, "uii": row["uii"]} | WHY


def search_of(client: Any, **fields: str) -> dict[str, str]:
    """What the form of a result list sends."""
    asked = {"from": str(DAY), "to": str(DAY)} | fields
    answer = client.post("/search", data=asked, follow_redirects=False)
    return {"q": httpx.URL(answer.headers["location"]).params["q"]} | WHY


def unpacked(body: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(body)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_a_call_is_exported_with_proof_and_each_recording_is_in_the_access_log(full: Site, tmp_path: Path) -> None:
    client = full.client("quality")
    assert "Export this call, with proof" in client.get(path_of(full.rows[0])).text
    answer = client.post("/export", data=call_of(full.rows[0]))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="calls-2026-11-23T090000Z.zip"'
    assert "content-length" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"
    (tmp_path / "calls.zip").write_bytes(answer.content)
    report = verify(tmp_path / "calls.zip")
    assert (report.exit_code, report.proved) == (0, 2)
    entries = full.log("export")
    assert {(entry["user"], entry["why"], entry["uii"]) for entry in entries} == {
        ("quality", "case 4711", full.rows[0]["uii"])
    }
    assert {entry["recording_id"] for entry in entries} == {row["recording_id"] for row in full.rows[:2]}
    listing = json.loads(unpacked(answer.content)["package.json"])
    assert (listing["exported_by"], listing["why"]) == ("quality", "case 4711")


def test_the_result_of_a_search_is_exported_and_what_is_not_held_is_listed(full: Site) -> None:
    client = full.client("quality")
    form = search_of(client)
    assert "Export what was found, with proof" in client.get(f"/?q={form['q']}").text
    listing = json.loads(unpacked(client.post("/export", data=form).content)["package.json"])
    assert len(listing["recordings"]) == 3
    assert [(recording["state"], recording["reason"]) for recording in listing["not_included"]] == [
        ("missing", "not_found")
    ]
    assert listing["asked_for"] == {"from": str(DAY), "to": str(DAY)}
    assert len(full.log("export")) == 4


def test_only_who_may_export_does_and_only_what_they_may_hear(full: Site) -> None:
    full.rules("[groups.none]\nroles = []\n")
    people = full.folder / "access.toml"
    people.write_text(people.read_text().replace('["listen_own_team"]', '["listen_own_team", "export"]'))
    seller = full.client("seller")
    files = unpacked(seller.post("/export", data=search_of(seller)).content)
    listing = json.loads(files["package.json"])
    assert {recording["uii"] for recording in listing["recordings"]} == {full.rows[0]["uii"]}
    assert OTHER not in str(files)
    assert seller.post("/export", data=call_of(full.rows[2])).status_code == 404
    for name in ("auditor", "nobody"):
        client = full.client(name)
        assert client.post("/export", data=call_of(full.rows[0])).status_code in {403, 404}
        assert "with proof" not in client.get(path_of(full.rows[0])).text
    assert {entry["user"] for entry in full.log("export")} == {"seller"}
    assert {entry["user"] for entry in full.log("refused")} >= {"seller", "auditor", "nobody"}


def test_a_whole_call_in_which_others_took_part_is_withheld(full: Site) -> None:
    full.add(tone(0.1, 700), layout="mono", agent_id=f"1001; {SUPPORT}", queue_id="9", agent_channel=None)
    full.seal()
    full.rules()
    people = full.folder / "access.toml"
    people.write_text(people.read_text().replace('["listen_own_team"]', '["listen_own_team", "export"]'))
    answer = full.client("seller").post("/export", data=call_of(full.rows[0]))
    listing = json.loads(unpacked(answer.content)["package.json"])
    assert [recording["state"] for recording in listing["not_included"]] == ["withheld"]
    assert len(listing["recordings"]) == 2


def test_numbers_are_masked_in_the_package_of_who_may_not_see_them(full: Site) -> None:
    full.rules()
    people = full.folder / "access.toml"
    people.write_text(people.read_text().replace('["listen_own_team"]', '["listen_own_team", "export"]'))
    seller = full.client("seller")
    files = unpacked(seller.post("/export", data=call_of(full.rows[0])).content)
    (first, _) = csv.DictReader(io.StringIO(files["calls.csv"].decode()))
    assert first["ani"].endswith("42")
    assert not [name for name, body in files.items() if b"555-01" in body or b"6025550142" in body]
    whole = unpacked(full.client("quality").post("/export", data=call_of(full.rows[0])).content)
    assert b"555-0142" in whole["calls.csv"]


@pytest.mark.parametrize(
    ("form", "status", "sentence"),
    [
        ({"why": ""}, 400, "Give a reason"),
        ({"why": " 12 "}, 400, "Give a reason"),
        ({"uii": "unknown"}, 404, "no such call"),
        ({"day": "../../x"}, 404, "no such call"),
        ({"q": "forged"}, 404, "has expired"),
    ],
)
def test_a_wrong_form_is_answered_with_a_sentence_and_gives_nothing_out(
    full: Site, form: dict[str, str], status: int, sentence: str
) -> None:
    answer = full.client("quality").post("/export", data=call_of(full.rows[0]) | form)
    assert (answer.status_code, sentence in answer.text) == (status, True)
    assert full.log("export") == []


def test_a_search_of_somebody_else_is_not_exported(full: Site) -> None:
    form = search_of(full.client("officer"))
    assert full.client("quality").post("/export", data=form).status_code == 404


def test_more_than_the_stated_number_is_refused(full: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.browser.app._MOST_EXPORTED", 3)
    client = full.client("quality")
    answer = client.post("/export", data=search_of(client))
    assert (answer.status_code, "more than 3 recordings and calls" in answer.text) == (400, True)
    assert full.log("export") == []
    (refused,) = full.log("refused")
    assert (refused["user"], refused["details"]) == ("quality", {"from": str(DAY), "to": str(DAY), "asked": "export"})


def test_a_search_is_not_exported_without_the_right_and_each_attempt_is_logged(
    full: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.browser.app.find", lambda *_: pytest.fail("something was looked for"))
    for name in ("seller", "auditor", "nobody"):
        client = full.client(name)
        answer = client.post("/export", data=search_of(client, agent="zzz"))
        assert (answer.status_code, "You may not export search results." in answer.text) == (403, True)
    refused = full.log("refused")
    assert {(entry["user"], entry["details"]["agent"]) for entry in refused} == {
        (name, "zzz") for name in ("seller", "auditor", "nobody")
    }


def test_only_the_own_teams_calls_count_towards_the_most_that_is_exported(
    full: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    full.rules()
    people = full.folder / "access.toml"
    people.write_text(people.read_text().replace('["listen_own_team"]', '["listen_own_team", "export"]'))
    own = [row for row in full.rows if row["agent_id"] == SALES]
    assert len(own) < len(full.rows)
    client = full.client("seller")
    for most, status in ((len(own), 200), (len(own) - 1, 400)):
        monkeypatch.setattr("pipelines.browser.app._MOST_EXPORTED", most)
        assert client.post("/export", data=search_of(client)).status_code == status
    assert {entry["uii"] for entry in full.log("export")} == {row["uii"] for row in own}


def test_an_altered_recording_is_left_out_and_said(full: Site, tmp_path: Path) -> None:
    full.overwrite(full.rows[0]["key"], tone(0.3, 300, 501))
    (tmp_path / "calls.zip").write_bytes(full.client("quality").post("/export", data=call_of(full.rows[0])).content)
    report = verify(tmp_path / "calls.zip")
    assert (report.exit_code, report.proved, report.left_out) == (1, 1, 1)


def test_what_cannot_be_logged_is_not_exported(full: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    client = full.client("quality")
    record = AccessLog.record

    def refuse(log: AccessLog, access: Any) -> str:
        if access.action == "export" and access.recording_id == full.rows[1]["recording_id"]:
            raise StorageUnavailable("S3 does not answer")
        return record(log, access)

    monkeypatch.setattr(AccessLog, "record", refuse)
    monkeypatch.setattr(Bucket, "hash_object", lambda *_: pytest.fail("a recording was read"))
    answer = client.post("/export", data=call_of(full.rows[0]))
    assert (answer.status_code, "nothing was done" in answer.text) == (503, True)


def test_an_export_that_breaks_off_is_no_whole_answer(full: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    break_at(full.rows[1], monkeypatch)
    received: list[bytes] = []
    with serving(full) as url, httpx.Client(base_url=url, headers={"Origin": url}) as client:
        client.post("/sign-in", data={"name": "quality", "password": PASSWORD})
        with (
            client.stream("POST", "/export", data=call_of(full.rows[0])) as answer,
            pytest.raises(httpx.RemoteProtocolError, match="incomplete"),
        ):
            received.extend(answer.iter_bytes())
    assert len(b"".join(received)) > 1000
    assert not zipfile.is_zipfile(io.BytesIO(b"".join(received)))


def test_a_download_of_an_altered_recording_is_no_whole_answer(site: Site) -> None:
    row = site.add(tone(40, 300))
    site.seal()
    site.overwrite(row["key"], tone(40, 900))
    with serving(site) as url, httpx.Client(base_url=url, headers={"Origin": url}) as client:
        client.post("/sign-in", data={"name": "quality", "password": PASSWORD})
        form = fields_of(row) | {"why": "complaint 4711"}
        with (
            client.stream("POST", "/download", data=form) as answer,
            pytest.raises(httpx.RemoteProtocolError, match="without sending complete"),
        ):
            list(answer.iter_bytes())


def test_a_person_exports_once_at_a_time(full: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed, goes_on = Bucket.hash_object, threading.Event()

    def slow(bucket: Bucket, key: str, into: Any = None) -> Any:
        assert goes_on.wait(60)
        return hashed(bucket, key, into)

    monkeypatch.setattr(Bucket, "hash_object", slow)
    form = call_of(full.rows[0])
    with serving(full) as url, httpx.Client(base_url=url, headers={"Origin": url}, timeout=60) as client:
        client.post("/sign-in", data={"name": "quality", "password": PASSWORD})
        with client.stream("POST", "/export", data=form) as answer:
            second = client.post("/export", data=form)
            goes_on.set()
            assert zipfile.is_zipfile(io.BytesIO(answer.read()))
        assert (second.status_code, "One of your exports is still running" in second.text) == (429, True)
        assert len(full.log("export")) == 2, "what was refused is not in the log as exported"
        assert client.post("/export", data=form).status_code == 200


def test_a_right_that_is_taken_away_ends_an_export(full: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    client = full.client("quality")
    asked: list[bool] = []
    may = Browser._may_export

    def may_once(browser: Browser, request: Any, row: Any) -> bool:
        asked.append(may(browser, request, row))
        return asked[-1] and len(asked) < 3

    monkeypatch.setattr(Browser, "_may_export", may_once)
    listing = json.loads(unpacked(client.post("/export", data=call_of(full.rows[0])).content)["package.json"])
    assert [recording["state"] for recording in listing["not_included"]] == ["withheld"]

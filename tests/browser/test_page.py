"""Find a call, look at it, hear it, check it: the page as any browser sees it, without its script."""

from __future__ import annotations

import html
import re
import struct
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from pipelines.archive.errors import StorageUnavailable
from pipelines.archive.keys import attestation_prefix, manifest_key
from pipelines.archive.proof.attestation import MANIFESTS
from pipelines.evidence.integrity import check_recording
from tests.browser.site import DAY, HOSTILE_NAME, SUPPORT, Site, fields_of, path_of, samples, tone

SEARCH = {"from": str(DAY), "to": str(DAY)}


def audio_of(text: str) -> str:
    """The first link to audio of a page."""
    found = re.search(r'src="(/audio/[^"]+)"', text)
    assert found, text
    return found[1]


def test_a_search_shows_what_is_held_and_why_the_rest_is_not(site: Site) -> None:
    site.add(tone(1, 300, 500))
    site.add(None, uii="2026112219154001516000000002", agent_name="Grace Hopper", agent_id=SUPPORT)
    site.seal()
    answer = site.client("officer").post("/search", data={**SEARCH, "to": str(DAY + timedelta(days=1))})
    assert answer.status_code == 200
    assert "2 calls, 1 recording not held" in answer.text
    assert "missing: the source does not have it" in answer.text
    assert "Not searched, or only in part" in answer.text
    assert str(DAY + timedelta(days=1)) in answer.text
    assert "+1 (602) 555-0142" in answer.text


def test_a_link_fills_in_dates_and_state_alone_and_searches_for_nothing(site: Site) -> None:
    link = "/?from=2026-11-22&to=2026-11-23&state=pending&number=6025550142&agent=ava"
    text = site.client("officer").get(link).text
    assert 'name="from" value="2026-11-22"' in text
    assert 'name="to" value="2026-11-23"' in text
    assert '<option value="pending" selected>pending</option>' in text
    assert not re.search("6025550142|ava", text)
    assert not site.log("search")
    assert "alert(" not in site.client("officer").get("/?from=alert(1)&to=&state=alert(1)").text


def test_no_address_holds_what_was_searched_for(site: Site) -> None:
    site.add(tone(1, 300, 500))
    site.seal()
    answer = site.client("officer").post("/search", data={**SEARCH, "number": "6025550142"}, follow_redirects=False)
    assert answer.status_code == 303
    assert "5550142" not in answer.headers["location"]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"number": "602-555-0142"}, True),
        ({"number": "5550199"}, False),
        ({"agent": "o'neill"}, True),
        ({"queue": "billing"}, True),
        ({"direction": "outbound"}, False),
        ({"shortest": "0:08", "longest": "8"}, True),
        ({"shortest": "0:09"}, False),
        ({"disposition": "resolved", "state": "archived"}, True),
        ({"notes": "asked"}, True),
        ({"account": "1"}, False),
        ({"uii": "2026112219154001516000000001"}, True),
    ],
)
def test_each_field_of_the_form_is_looked_for(site: Site, fields: dict[str, str], found: bool) -> None:
    site.add(tone(1, 300, 500))
    site.seal()
    text = site.client("officer").post("/search", data=SEARCH | fields).text
    assert ("1 call" in text) is found
    assert ("No call matches." in text) is not found


@pytest.mark.parametrize(
    "fields",
    [{"from": "22/11/2026"}, {"to": "2026-11-01"}, {"shortest": "long"}, {"state": "held"}, {"notes": "x" * 201}],
)
def test_a_field_that_cannot_be_read_is_named_and_the_form_is_kept(site: Site, fields: dict[str, str]) -> None:
    site.seal()
    answer = site.client("officer").post("/search", data=SEARCH | {"agent": "Ava"} | fields)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert 'value="Ava"' in answer.text


def test_a_call_has_all_its_recordings_and_they_are_heard(site: Site) -> None:
    body = tone(2, 300, 500)
    row = site.add(body)
    site.add(tone(2, 400), layout="mono", agent_id=None, agent_name=None, agent_channel=None)
    site.add(None)
    site.seal()
    client = site.client("officer")
    text = client.get(path_of(row)).text
    assert text.count("<audio controls") == 2
    assert "missing: the source does not have it" in text
    answer = client.get(audio_of(text))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert (samples(answer.content) == np.frombuffer(body[44:], "<i2")).all()


def test_ranges_are_answered_as_the_standard_says(site: Site) -> None:
    row = site.add(tone(1, 300))
    site.seal()
    client = site.client("officer")
    link = audio_of(client.get(path_of(row)).text)
    whole = client.get(link).content
    size = len(whole)

    def ask(value: str, **more: str) -> tuple[int, str | None, bytes]:
        answer = client.get(link, headers={"Range": value, **more})
        return answer.status_code, answer.headers.get("content-range"), answer.content

    assert ask("bytes=10-19") == (206, f"bytes 10-19/{size}", whole[10:20])
    assert ask("bytes=0-") == (206, f"bytes 0-{size - 1}/{size}", whole)
    assert ask("bytes=-7") == (206, f"bytes {size - 7}-{size - 1}/{size}", whole[-7:])
    assert ask("bytes=5-99999999") == (206, f"bytes 5-{size - 1}/{size}", whole[5:])
    for ignored in ("bytes=9-5", "bytes=a-b", "bytes=0-1,4-5", "seconds=1-2", "bytes=-"):
        assert ask(ignored) == (200, None, whole)
    assert ask(f"bytes={size}-")[:2] == (416, f"bytes */{size}")
    etag = client.get(link).headers["etag"]
    assert ask("bytes=0-9", **{"If-Range": etag})[0] == 206
    assert ask("bytes=0-9", **{"If-Range": '"other"'})[0] == 200
    head = client.head(link)
    assert (head.status_code, head.headers["content-length"], head.headers["accept-ranges"]) == (
        200,
        str(size),
        "bytes",
    )
    assert head.content == b""


def test_a_link_to_audio_ends_after_sixty_seconds_and_is_for_one_person(site: Site) -> None:
    row = site.add(tone(1, 300))
    site.seal()
    officer, quality = site.client("officer"), site.client("quality")
    link = audio_of(officer.get(path_of(row)).text)
    assert quality.get(link).status_code == 403
    assert site.client().get(link).status_code == 401
    site.moment += timedelta(seconds=60)
    assert officer.get(link).status_code == 200
    site.moment += timedelta(seconds=1)
    answer = officer.get(link)
    assert (answer.status_code, answer.text) == (
        403,
        "This link has expired or is not yours: load the call's page again.\n",
    )
    assert officer.get(f"{link[:-3]}abc").status_code == 403
    fresh = officer.get("/link", params=fields_of(row)).json()
    assert officer.get(fresh["audio"]).status_code == 200


def test_a_search_in_an_address_is_for_one_person_and_for_a_day(site: Site) -> None:
    site.add(tone(1, 300))
    site.seal()
    officer = site.client("officer")
    address = officer.post("/search", data=SEARCH, follow_redirects=False).headers["location"]
    assert "1 call" in officer.get(address).text
    assert site.client("quality").get(address).status_code == 404
    site.moment += timedelta(days=1)
    assert "1 call" in officer.get(address).text
    site.moment += timedelta(seconds=1)
    assert officer.get(address).status_code == 404


def test_a_waveform_is_never_shown_of_other_bytes_than_are_stored(site: Site) -> None:
    row = site.add(tone(1, 300))
    site.seal()
    client = site.client("officer")
    link = audio_of(client.get(path_of(row)).text).replace("/audio/", "/peaks/")
    before = client.get(link).json()
    site.overwrite(row["key"], tone(1, 0))
    assert client.get(link).json() != before
    site.remove(row["key"])
    assert client.get(link).status_code == 404


def test_the_bytes_are_checked_against_the_sealed_manifest(site: Site) -> None:
    row = site.add(tone(1, 300))
    site.seal()
    client = site.client("officer")
    assert "The bytes are as sealed in manifest 1" in client.post("/check", data=fields_of(row)).text
    site.overwrite(row["key"], tone(1, 301))
    text = client.post("/check", data=fields_of(row)).text
    assert f"The bytes are not those sealed in manifest 1 of {DAY}: verify this date." in text
    site.remove(row["key"])
    assert "nothing is stored under its key now" in client.post("/check", data=fields_of(row)).text


def test_an_object_that_is_gone_or_of_another_size_is_said_and_not_played(site: Site) -> None:
    row = site.add(tone(1, 300))
    site.seal()
    client = site.client("officer")
    link = audio_of(client.get(path_of(row)).text)
    site.overwrite(row["key"], tone(2, 300))
    assert client.get(link).status_code == 409
    site.remove(row["key"])
    assert client.get(link).status_code == 404
    assert client.get(link.replace("/audio/", "/peaks/")).status_code == 404


def test_what_people_wrote_is_text_and_never_markup(site: Site) -> None:
    row = site.add(tone(1, 300), agent_name=HOSTILE_NAME, notes=HOSTILE_NAME, disposition='"><img src=x>')
    site.seal()
    client = site.client("officer")
    for text in (client.get(path_of(row)).text, client.post("/search", data=SEARCH | {"agent": HOSTILE_NAME}).text):
        assert HOSTILE_NAME not in text
        assert "<img" not in text
        assert "&lt;script&gt;" in text


@pytest.mark.parametrize("key", ["ledger/x.parquet", "recordings/date=2026-11-22/../../ledger/x", "/etc/passwd"])
def test_a_table_that_names_another_object_does_not_give_it_away(site: Site, key: str) -> None:
    stored = f"{site.bucket.prefix}{key}"
    row = site.add(tone(1, 300), key=stored)
    site.seal()
    client = site.client("officer")
    assert "<audio" not in client.get(path_of(row)).text
    assert client.get("/link", params=fields_of(row)).status_code == 404
    assert client.post("/download", data=fields_of(row) | {"why": "because"}).status_code == 404
    assert "does not hold" in check_recording(site.bucket, None, row | {"date": DAY}).sentence


@pytest.mark.parametrize("forged", [("key", "size", "sha256"), ("recording_id", "key", "size", "sha256")])
def test_a_forged_table_does_not_give_away_another_calls_recording(site: Site, forged: tuple[str, ...]) -> None:
    own = site.add(tone(1, 300))
    other = site.add(tone(2, 500), uii="2026112219154001516000000077", agent_id=SUPPORT)
    site.seal()
    own |= {name: other[name] for name in forged}
    site.store_calls()
    client = site.client("quality")
    link = audio_of(client.get(path_of(own)).text)
    assert client.get(link).status_code == 409
    assert client.get(link.replace("/audio/", "/peaks/")).status_code == 409
    assert client.post("/download", data=fields_of(own) | {"why": "complaint"}).status_code == 409
    assert "badge bad" in client.post("/check", data=fields_of(own)).text
    assert not site.log("play", "waveform", "download")


def test_a_check_is_not_good_when_the_latest_manifest_is_gone_or_replaced(site: Site) -> None:
    first = site.add(tone(1, 300))
    site.seal()
    row = site.add(tone(2, 300))
    site.seal()
    client = site.client("officer")
    assert "The bytes are as sealed in manifest 2" in client.post("/check", data=fields_of(first)).text
    latest = manifest_key(site.bucket.prefix, DAY, 2)
    body = site.bucket.get_bytes(latest)
    site.remove(latest)
    # Neither by what was attested, nor by the table calls alone.
    assert "Manifest 2 of 2026-11-22 was sealed and is gone" in client.post("/check", data=fields_of(first)).text
    for each in site.rows:
        each |= {"manifest_number": 1, "manifest_sha256": None}
    site.store_calls()
    assert "Manifest 2 of 2026-11-22 was sealed and is gone" in client.post("/check", data=fields_of(first)).text
    site.bucket.put(latest, body.replace(b'"run_id":"run"', b'"run_id":"own"'), content_type="application/json")
    assert "Manifest 2 of 2026-11-22 was altered" in client.post("/check", data=fields_of(row)).text


def test_a_check_is_not_good_when_no_attestation_names_the_manifest(site: Site) -> None:
    row = site.add(tone(1, 300))
    site.seal()
    for key, _ in list(site.bucket.list_keys(attestation_prefix(site.bucket.prefix, MANIFESTS, DAY))):
        site.remove(key)
    assert "No attestation names manifest 1" in site.client("officer").post("/check", data=fields_of(row)).text


@pytest.mark.parametrize("person", ["auditor", "officer"])
def test_a_calls_page_says_when_its_table_is_older_than_the_sealed_manifest(site: Site, person: str) -> None:
    row = site.add(tone(1, 300))
    site.seal()
    client = site.client(person)
    assert "This page is from" not in client.get(path_of(row)).text
    older = [dict(row) for row in site.rows]
    site.add(tone(1, 400), uii="2026112219154001516000000002")
    site.seal()
    site.rows[:] = older
    site.store_calls()
    sentence = (
        f"This page is older than manifest 2 of {DAY}: materialize the asset calls for {DAY} in Dagster to update it."
    )
    assert client.get(path_of(row)).text.count(sentence) == 1
    site.rows[0] |= {"manifest_number": 2}
    site.store_calls()
    assert f"This page is from a manifest of {DAY} that is not the latest one stored" in client.get(path_of(row)).text
    site.overwrite(manifest_key(site.bucket.prefix, DAY, 2), b"{}")
    assert f"The latest manifest of {DAY} is not what was sealed: verify this date." in client.get(path_of(row)).text


def test_a_check_says_that_no_signature_was_checked(site: Site) -> None:
    row = site.add(tone(1, 300))
    site.seal()
    assert (
        "whose signature was not checked: no key is set"
        in site.client("officer").post("/check", data=fields_of(row)).text
    )


def test_a_download_is_the_stored_file_and_asks_why(site: Site) -> None:
    body = tone(40, 300)
    row = site.add(body)
    site.seal()
    client = site.client("quality")
    assert client.post("/download", data=fields_of(row)).status_code == 400
    answer = client.post("/download", data=fields_of(row) | {"why": "complaint 4711"})
    assert answer.content == body
    assert answer.headers["content-disposition"] == f'attachment; filename="{row["key"].rpartition("/")[2]}"'
    (entry,) = site.log("download")
    assert (entry["user"], entry["recording_id"], entry["why"]) == ("quality", row["recording_id"], "complaint 4711")


def test_an_altered_object_of_the_same_size_is_not_downloaded(site: Site) -> None:
    row = site.add(tone(1, 300))
    site.seal()
    site.overwrite(row["key"], tone(1, 900))
    answer = site.client("quality").post("/download", data=fields_of(row) | {"why": "complaint 4711"})
    assert answer.status_code == 409
    assert "not hold what was sealed" in answer.text


def test_every_action_is_in_the_access_log_with_the_seconds_that_were_sent(site: Site) -> None:
    row = site.add(tone(130, 300))
    site.seal()
    client = site.client("officer")
    client.post("/search", data=SEARCH | {"number": "6025550142"})
    link = audio_of(client.get(path_of(row)).text)
    client.get(link)
    client.get(link.replace("/audio/", "/peaks/"))
    client.post("/check", data=fields_of(row))
    assert {entry["user"] for entry in site.log()} == {"officer"}
    assert sorted(entry["action"] for entry in site.log()) == sorted(
        ["sign_in", "search", "view", "play", "play", "play", "waveform", "check"]
    )
    assert [entry["details"] for entry in site.log("search")] == [SEARCH | {"number": "6025550142"}]
    spans = sorted((entry["from_s"], entry["to_s"]) for entry in site.log("play"))
    assert spans == [
        (0.0, pytest.approx(60, abs=0.01)),
        (pytest.approx(60, abs=0.01), pytest.approx(120, abs=0.01)),
        (pytest.approx(120, abs=0.01), 130.0),
    ]
    shown = client.get(f"{path_of(row)}?access=1").text
    assert "listened to 1:00–2:00" in shown


def test_the_access_log_is_listed_only_for_who_asks_for_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    row = site.add(tone(1, 300))
    site.seal()
    client = site.client("officer")
    listed: list[str] = []
    listing = site.bucket.list_keys

    def list_keys(start: str, *rest: Any) -> Any:
        listed.append(start)
        return listing(start, *rest)

    monkeypatch.setattr(site.bucket, "list_keys", list_keys)
    text = client.get(path_of(row)).text
    assert not [start for start in listed if "/access/" in start]
    link = re.search(r'href="([^"]+)">Show who had access', text)
    assert link
    assert "viewed the call" in client.get(html.unescape(link[1])).text


def test_what_cannot_be_logged_does_not_happen(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    row = site.add(tone(1, 300))
    site.seal()
    client = site.client("officer")
    link = audio_of(client.get(path_of(row)).text)

    def fails(*_: object, **__: object) -> None:
        raise StorageUnavailable("S3 did not answer")

    monkeypatch.setattr(site.bucket, "put_new", fails)
    for answer in (
        client.get(link),
        client.get(link.replace("/audio/", "/peaks/")),
        client.get(path_of(row)),
        client.post("/search", data=SEARCH),
        client.post("/check", data=fields_of(row)),
        client.post("/download", data=fields_of(row) | {"why": "complaint"}),
    ):
        assert answer.status_code == 503
        assert "Ava" not in answer.text


def test_the_end_of_four_hours_is_heard_without_reading_what_comes_before(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = 4 * 3600 * 32000
    head = tone(1, 300, 500)[:40] + struct.pack("<I", data)
    row = site.add(tone(1, 300, 500), size=44 + data)
    site.seal()
    read: list[int] = []

    def read_range(_key: str, start: int, end: int, size: int) -> bytes:
        assert size == 44 + data
        read.append(end - start)
        return head[start:end].ljust(end - start, b"\1")

    monkeypatch.setattr(site.bucket, "read_range", read_range)
    client = site.client("officer")
    link = audio_of(client.get(path_of(row)).text)
    answer = client.get(link, headers={"Range": "bytes=-64000"})
    assert (answer.status_code, answer.headers["content-length"]) == (206, "64000")
    assert sum(read) < 400_000
    (played,) = site.log("play")
    assert (played["from_s"], played["to_s"]) == (14398.0, 14400.0)


def test_audio_ends_where_its_log_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    row = site.add(tone(130, 300))
    site.seal()
    client = site.client("officer", raise_server_exceptions=False)
    link = audio_of(client.get(path_of(row)).text)
    put, written = site.bucket.put_new, iter(range(10))

    def fails_later(*given: Any, **named: Any) -> Any:
        if next(written):
            raise StorageUnavailable("S3 did not answer")
        return put(*given, **named)

    monkeypatch.setattr(site.bucket, "put_new", fails_later)
    answer = client.get(link)
    (played,) = site.log("play")
    assert len(answer.content) == 60 * 16000
    assert played["to_s"] == pytest.approx(60, abs=0.01)


def test_health_says_nothing_of_the_archive(site: Site) -> None:
    assert site.client().get("/health", headers={"Host": "10.0.0.7"}).json() == {"page": "serving"}

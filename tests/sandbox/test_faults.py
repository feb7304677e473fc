"""A fault of the sandbox acts on the recordings it was set for, as often as it was set to, and on no other."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import Faults, Where
from sandbox.faults import LINK_FAULTS, MEDIA_FAULTS, REPORT_FAULTS
from tests.sandbox.conftest import Asker, Clock

CUTS = ("cut_off", "cut_off_chunked", "reset", "reset_early")


@pytest.fixture
def source(start: Callable[..., Asker]) -> Asker:
    return start()


@pytest.fixture
def truth(source: Asker) -> dict[str, Any]:
    """A stereo recording of yesterday."""
    listed = source.sandbox.truth("2026-03-09")
    return next(item for item in listed if item["layout"] == "stereo" and item["duration_s"] >= 5)


def raw_exchange(source: Asker, file: str) -> tuple[bytes, bool]:
    """Everything that comes over a plain socket, and whether the end was a reset."""
    address = urlsplit(source.sandbox.url)
    received = b""
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=5) as connection:
        target = f"/api/v1/calls/recordings?accountId=15300002&file={file}"
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {address.netloc}\r\nUser-Agent: raw/1\r\n\r\n".encode())
        try:
            while block := connection.recv(1 << 16):
                received += block
        except ConnectionResetError:
            return received, True
    return received, False


@given(st.text(min_size=1), st.integers(), st.floats(0, 1))
def test_what_a_share_takes_depends_on_seed_name_and_subject_only(subject: str, seed: int, share: float) -> None:
    where = Where(share=share)
    assert where.takes(subject, name="a", seed=seed) == where.takes(subject, name="a", seed=seed)
    if where.takes(subject, name="a", seed=seed):  # a larger share takes all that a smaller one took
        assert Where(share=min(1.0, share * 1.5)).takes(subject, name="a", seed=seed)


def test_a_share_takes_about_its_share_and_each_knob_takes_others() -> None:
    taken = [{n for n in range(2000) if Where(share=0.1).takes(str(n), name=name, seed=0)} for name in ("a", "b")]
    assert all(150 < len(some) < 250 for some in taken)
    assert len(taken[0] & taken[1]) < 50


def test_paths_may_be_exact_or_patterns() -> None:
    where = Where(paths=("a/b.WAV", "*-stereo.WAV"))
    assert where.takes("a/b.WAV", name="x", seed=0)
    assert where.takes("z/y-session-2-stereo.WAV", name="x", seed=0)
    assert not where.takes("a/c.WAV", name="x", seed=0)


def test_knobs_survive_json() -> None:
    faults = Faults(mp3=Where(0.5, ("a",), 3), seed=9, not_ready="202", token_seconds=1.5)
    assert Faults.parse(faults.to_json()) == faults
    assert Faults.parse({"mp3": 0.25, "reset": ["x"]}) == Faults(mp3=Where(0.25), reset=Where(paths=("x",)))


@pytest.mark.parametrize(
    "knobs", [{"nonsense": 1}, {"mp3": "yes"}, {"mp3": 2}, {"not_ready": "500"}, {"mp3": {"portion": 1}}]
)
def test_what_is_no_knob_is_refused(knobs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        Faults.parse(knobs)


def test_every_knob_of_the_tables_exists() -> None:
    for name in (*MEDIA_FAULTS, *REPORT_FAULTS, *LINK_FAULTS):
        assert isinstance(getattr(Faults(), name), Where)


def test_without_faults_the_recording_is_what_the_truth_says(source: Asker, truth: dict[str, Any]) -> None:
    answer = source.media(truth["file"])
    assert answer.headers["content-type"] == "audio/wav"
    assert len(answer.content) == truth["size"] == int(answer.headers["content-length"])
    assert sha256(answer.content) == truth["sha256"]


def sha256(body: bytes) -> str:
    import hashlib

    return hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize(
    ("knob", "status", "content_type", "beginning"),
    [
        ("not_found", 404, "text/plain", b"Not"),
        ("not_yet", 404, "text/plain", b"Not"),
        ("still_encoding", 202, "text/plain", b"still encoding"),
        ("empty_body", 200, "audio/wav", None),
        ("html_200", 200, "text/html", b"<!DOCTYPE html>"),
        ("json_200", 200, "application/json", b"{"),
        ("mp3", 200, "audio/mpeg", b"ID3"),
        ("unauthorized", 401, "text/plain", b"Unauthorized"),
        ("forbidden", 403, "application/json", b"{"),
        ("throttled", 429, "application/json", b"{"),
        ("server_error", 503, "application/json", b"{"),
        ("header_only", 200, "audio/wav", b"RIFF"),
    ],
)
def test_a_recording_fails_as_told_and_only_so_often(
    source: Asker, truth: dict[str, Any], *, knob: str, status: int, content_type: str, beginning: bytes | None
) -> None:
    source.sandbox.set_faults({knob: {"paths": [truth["file"]], "first": 2}})
    answers = [source.media(truth["file"]) for _ in range(3)]
    for answer in answers[:2]:
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith(content_type)
        assert answer.content.startswith(beginning or b"")
        assert (answer.content == b"") == (beginning is None)
    assert sha256(answers[2].content) == truth["sha256"]


def test_a_fault_touches_no_other_recording(source: Asker, truth: dict[str, Any]) -> None:
    other = next(item for item in source.sandbox.truth("2026-03-09") if item["file"] != truth["file"])
    source.sandbox.set_faults({"not_found": [truth["file"]]})
    assert source.media(truth["file"]).status_code == 404
    assert sha256(source.media(other["file"]).content) == other["sha256"]


def test_faults_follow_one_another(source: Asker, truth: dict[str, Any]) -> None:
    source.sandbox.set_faults(
        {
            "server_error": {"share": 1, "first": 1},
            "not_yet": {"share": 1, "first": 2},
            "html_200": {"share": 1, "first": 3},
        }
    )
    assert [source.media(truth["file"]).status_code for _ in range(3)] == [503, 404, 200]
    assert sha256(source.media(truth["file"]).content) == truth["sha256"]


def test_a_header_only_recording_has_44_bytes(source: Asker, truth: dict[str, Any]) -> None:
    source.sandbox.set_faults({"header_only": 1})
    assert len(source.media(truth["file"]).content) == 44


def test_a_throttled_request_says_how_long_to_wait(source: Asker, truth: dict[str, Any]) -> None:
    source.sandbox.set_faults({"throttled": 1, "retry_after_s": 7})
    assert source.media(truth["file"]).headers["retry-after"] == "7"


def test_the_status_of_a_server_error_can_be_chosen(source: Asker, truth: dict[str, Any]) -> None:
    source.sandbox.set_faults({"server_error": 1, "error_status": 502})
    assert source.media(truth["file"]).status_code == 502


@pytest.mark.parametrize("knob", CUTS)
def test_a_client_sees_that_a_connection_was_cut(source: Asker, truth: dict[str, Any], knob: str) -> None:
    source.sandbox.set_faults({knob: {"share": 1, "first": 1}})
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        source.media(truth["file"])
    assert sha256(source.media(truth["file"]).content) == truth["sha256"]


def test_a_cut_off_body_is_shorter_than_declared(source: Asker, truth: dict[str, Any]) -> None:
    source.sandbox.set_faults({"cut_off": 1})
    received, was_reset = raw_exchange(source, truth["file"])
    head, _, body = received.partition(b"\r\n\r\n")
    assert not was_reset
    assert f"content-length: {truth['size']}".encode() in head.lower()
    assert len(body) == truth["size"] // 2


def test_a_chunked_body_is_cut_before_its_last_chunk(source: Asker, truth: dict[str, Any]) -> None:
    source.sandbox.set_faults({"cut_off_chunked": 1})
    received, was_reset = raw_exchange(source, truth["file"])
    head, _, body = received.partition(b"\r\n\r\n")
    assert not was_reset
    assert b"transfer-encoding: chunked" in head.lower()
    assert len(body) > truth["size"] // 2
    assert not body.endswith(b"0\r\n\r\n")


def test_an_unframed_body_is_cut_without_any_sign_but_the_wavs_own_header(source: Asker, truth: dict[str, Any]) -> None:
    source.sandbox.set_faults({"cut_off_unframed": 1})
    received, was_reset = raw_exchange(source, truth["file"])
    head, _, body = received.partition(b"\r\n\r\n")
    assert not was_reset
    assert b"content-length" not in head.lower()
    assert b"transfer-encoding" not in head.lower()
    assert int.from_bytes(body[4:8], "little") + 8 == truth["size"] == 2 * len(body)
    assert len(source.media(truth["file"]).content) == len(body)  # no error for the client


def test_a_reset_is_a_real_one_in_the_middle_of_the_body(source: Asker, truth: dict[str, Any]) -> None:
    source.sandbox.set_faults({"reset": 1})
    received, was_reset = raw_exchange(source, truth["file"])
    assert was_reset
    assert 0 < len(received) < truth["size"]


def test_an_early_reset_comes_before_any_byte(source: Asker, truth: dict[str, Any]) -> None:
    source.sandbox.set_faults({"reset_early": 1})
    assert raw_exchange(source, truth["file"]) == (b"", True)


def test_a_slow_body_takes_its_time_and_is_whole(source: Asker, truth: dict[str, Any]) -> None:
    source.sandbox.set_faults({"slow": 1, "slow_bytes_per_s": truth["size"] * 2})
    begin = time.monotonic()
    assert sha256(source.media(truth["file"]).content) == truth["sha256"]
    assert time.monotonic() - begin >= 0.4


def test_a_browser_gets_an_mp3(source: Asker, truth: dict[str, Any]) -> None:
    answer = source.media(truth["file"], headers={"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"})
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.content.startswith(b"ID3")


def test_a_redirect_on_the_same_host_leads_to_the_recording(source: Asker, truth: dict[str, Any]) -> None:
    source.sandbox.set_faults({"redirect_same_host": 1})
    answer = source.media(truth["file"])
    assert answer.status_code == 302
    assert sha256(source.http.get(answer.headers["location"]).content) == truth["sha256"]


def test_a_redirect_to_another_host_is_seen_when_followed(source: Asker, truth: dict[str, Any]) -> None:
    source.sandbox.set_faults({"redirect_other_host": 1})
    answer = source.media(truth["file"])
    assert httpx.URL(answer.headers["location"]).host == "localhost"
    source.http.get(answer.headers["location"], headers={"Authorization": "Basic eDp5"})
    counted = source.sandbox.counters()
    assert counted["requests"]["evil_host"] == 1
    leak = {"where": "evil_host", "header": "authorization", "path": truth["file"]}
    assert counted["leaked_credentials"] == [leak]


@pytest.mark.parametrize(("how", "status"), [("404", 404), ("202", 202), ("empty", 200)])
def test_a_recording_is_not_ready_until_some_time_after_its_call(
    start: Callable[..., Asker], clock: Clock, how: str, status: int
) -> None:
    source = start(ready_after_s=86_400 * 2, faults=Faults.parse({"not_ready": how}))
    item = source.sandbox.truth("2026-03-09")[0]
    answer = source.media(item["file"])
    assert answer.status_code == status
    assert not answer.content.startswith(b"RIFF")
    clock.advance(86_400 * 2)
    assert sha256(source.media(item["file"]).content) == item["sha256"]
    assert source.sandbox.counters()["refused"]["media_not_ready"] == 1


def test_recordings_that_are_not_ready_answer_in_several_ways(start: Callable[..., Asker]) -> None:
    source = start(ready_after_s=86_400 * 2)
    statuses = {source.media(item["file"]).status_code for item in source.sandbox.truth("2026-03-09")}
    assert statuses == {404, 202, 200}


def test_a_recording_is_gone_after_the_retention_period(start: Callable[..., Asker]) -> None:
    source = start(retention_days=30)
    old, young = (source.sandbox.truth(day)[0] for day in ("2026-01-05", "2026-03-05"))
    assert source.media(old["file"]).status_code == 404
    assert source.media(young["file"]).status_code == 200
    assert (old["expected"], young["expected"]) == ("missing", "archived")


@pytest.mark.parametrize("file", ["", "15300002/202603/09/none-1.WAV", "..%2F..%2Fetc%2Fpasswd"])
def test_what_does_not_exist_is_not_served(source: Asker, file: str) -> None:
    assert source.media(file).status_code in (400, 404)


def test_recordings_may_need_basic_auth(start: Callable[..., Asker]) -> None:
    from sandbox import Credentials

    source = start(credentials=Credentials(media_username="m", media_password="p"))
    item = source.sandbox.truth("2026-03-09")[0]
    assert source.media(item["file"]).status_code == 401
    assert source.media(item["file"], auth=("m", "wrong")).status_code == 401
    assert sha256(source.media(item["file"], auth=("m", "p")).content) == item["sha256"]
    assert source.sandbox.counters()["leaked_credentials"] == []
    assert source.sandbox.environment()["RINGCX_MEDIA_USERNAME"] == "m"


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, "archived"),
        ({"not_found": 1}, "missing"),
        ({"not_yet": {"share": 1, "first": 3}}, "archived"),
        ({"html_200": 1}, "rejected"),
        ({"mp3": 1}, "rejected"),
        ({"cut_off": 1}, "rejected"),
        ({"forbidden": 1}, "denied"),
        ({"unauthorized": 1}, "denied"),
        ({"link_evil_host": 1}, "rejected"),
        ({"link_stray_blanks": 1}, "archived"),
        ({"late_links": {"share": 1, "first": 1}}, "archived"),
        ({"late_links": 1}, "unlinked"),
        ({"server_error": 1}, "pending"),
        ({"redirect_other_host": 1}, "rejected"),
        ({"slow": 1}, "archived"),
    ],
)
def test_the_truth_says_how_a_patient_archiver_ends(knobs: dict[str, Any], expected: str) -> None:
    assert Faults.parse(knobs).expected_state("any/path.WAV") == expected

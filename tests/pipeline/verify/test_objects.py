"""`ringcx-archive verify` names recordings that were altered, moved, removed or added."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.response import StreamingBody
from dagster import DagsterInstance

from pipelines.ledger.states import RecordingState
from tests.pipeline.verify.conftest import ARCHIVE_PREFIX, DAYS, FIRST, LAST, MIDDLE, Copy, sealed_again


@dataclass
class Rotten:
    """An S3 client of which one object's last byte has turned, and whose listings and headers do not know it."""

    client: Any
    key: str | None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def get_object(self, **query: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get_object(**query)
        if query["Key"] == self.key:
            body = answer["Body"].read()
            answer["Body"] = StreamingBody(io.BytesIO(body[:-1] + bytes([body[-1] ^ 1])), len(body))
        return answer


def test_a_clean_archive_is_proved_in_both_forms_and_nothing_is_written(copy: Copy) -> None:
    before = copy.everything()
    assert copy.doubts() == set()
    assert copy.result["good"]
    assert copy.result["notes"] == ["Signatures were not checked: set ARCHIVE_VERIFY_KEY_FILE to check them."]
    assert copy.result["sum"]["read"] == 0
    assert "No discrepancy: the archive of 3 dates is as it was sealed" in copy.out
    held = sum(len(copy.held(day)) for day in DAYS)
    assert held > 20
    assert copy.doubts("--read-data") == set()
    assert copy.result["sum"]["held"] == copy.result["sum"]["read"] == held
    assert [of_date["date"] for of_date in copy.result["dates"]] == [str(day) for day in DAYS]
    assert sum(of_date["lost"] + of_date["pending"] for of_date in copy.result["dates"]) > 0
    assert max(of_date["manifest"] for of_date in copy.result["dates"]) > 1
    for day in DAYS:
        assert re.search(rf"^{day} .* as sealed$", copy.out, re.MULTILINE)
    assert copy.err == f"{copy.folder / 'verify.json'} was written.\n"
    assert copy.everything() == before


def test_a_share_is_chosen_by_a_printed_seed_that_chooses_it_again(copy: Copy) -> None:
    assert copy.verify("--read-data", "40%") == 0
    first = {day["date"]: day["read"] for day in copy.result["dates"]}
    seed = copy.result["read_data"]["seed"]
    assert f"--seed {seed}" in copy.out
    assert 0 < sum(first.values()) < copy.result["sum"]["held"]
    assert copy.verify("--read-data", "40%", "--seed", seed) == 0
    assert {day["date"]: day["read"] for day in copy.result["dates"]} == first


def test_an_altered_object_is_named_whether_its_length_changed_or_not(copy: Copy) -> None:
    longer, same = copy.held(FIRST)[0], copy.held(LAST)[1]
    copy.put(longer.key, copy.get(longer.key) + b"\0\0")
    body = bytearray(copy.get(same.key))
    body[-1] ^= 1
    copy.put(same.key, bytes(body))
    assert copy.doubts() == {
        (str(FIRST), "object_altered", longer.key),
        (str(LAST), "object_altered", same.key),
    }
    assert hashlib.sha256(body).hexdigest() in copy.sentences(same.key)
    assert same.recording_id in copy.sentences(same.key)


def test_swapped_objects_are_both_named(copy: Copy) -> None:
    held, other = copy.held(MIDDLE)[:2]
    first, second = copy.get(held.key), copy.get(other.key)
    copy.put(held.key, second)
    copy.put(other.key, first)
    assert copy.doubts() == {(str(MIDDLE), "object_altered", held.key), (str(MIDDLE), "object_altered", other.key)}


def test_two_recordings_under_one_key_are_named_though_the_date_was_sealed_so(copy: Copy) -> None:
    kept, other = copy.held(MIDDLE)[:2]
    changed = {name: getattr(other, name) for name in RecordingState.__slots__} | {
        **{name: getattr(kept, name) for name in ("key", "size", "sha256", "etag", "version_id")},
        "written_at": datetime.now(UTC),
        "epoch": other.epoch + 1,
    }
    copy.ledger().append_states([RecordingState(**changed)])
    copy.delete(other.key or "")
    with DagsterInstance.ephemeral() as instance:
        assert sealed_again(instance, MIDDLE)
    assert copy.doubts("--read-data") == {(str(MIDDLE), "object_stray", kept.key)}


def test_deleted_and_added_objects_are_named(copy: Copy) -> None:
    gone = copy.held(FIRST)[-1]
    copy.delete(gone.key)
    added = [f"{ARCHIVE_PREFIX}recordings/date={MIDDLE}/{name}" for name in ("account_id=1/layout=mono/x.WAV", "y")]
    for key in added:
        copy.put(key, b"RIFF")
    assert copy.doubts() == {
        (str(FIRST), "object_missing", gone.key),
        *((str(MIDDLE), "object_stray", key) for key in added),
    }


def test_a_renamed_object_is_missing_and_a_stray(copy: Copy) -> None:
    recording = copy.held(LAST)[0]
    moved = recording.key.replace("date=", "date=").replace(".WAV", "-1.WAV")
    copy.put(moved, copy.get(recording.key))
    copy.delete(recording.key)
    assert copy.doubts() == {(str(LAST), "object_missing", recording.key), (str(LAST), "object_stray", moved)}


def test_reading_the_data_finds_what_the_cheap_form_cannot(copy: Copy) -> None:
    # A disk that rots does not tell its listing: the server here still gives the old ETag and length.
    recording = copy.held(LAST)[0]
    good = copy.get(recording.key)
    s3 = Rotten(copy.client, recording.key)
    assert copy.doubts(day=LAST, s3=s3) == set()
    assert copy.doubts("--read-data", day=LAST, s3=s3) == {(str(LAST), "object_altered", recording.key)}
    assert hashlib.sha256(good).hexdigest() in copy.sentences(recording.key)


def test_strays_that_belong_to_no_date_are_named_and_end_with_1(copy: Copy) -> None:
    held = copy.held(MIDDLE)[0].key or ""
    stray = [
        "backup.tar",
        "recordings/loose.WAV",
        "recordings/date=2026-13-45/x.WAV",
        "conflicts/loose.WAV",
        "quarantine/old/x.WAV",
        f"conflicts/date={MIDDLE}/account_id=1/layout=mono/0123456789abcdef-none.WAV",
        held.removeprefix(ARCHIVE_PREFIX).replace("recordings/", "conflicts/", 1).rpartition("/")[0] + "/made-up.WAV",
    ]
    for key in stray:
        copy.put(ARCHIVE_PREFIX + key, b"x")
    copy.put("elsewhere/not-ours", b"x")
    copy.put(f"{ARCHIVE_PREFIX}events/date={MIDDLE}/x.jsonl", b"x")
    copy.put(f"{ARCHIVE_PREFIX}probes/connection-x", b"x")
    found = copy.doubts()
    assert {kind for _, kind, _ in found} == {"object_stray"}
    assert {subject.removeprefix(ARCHIVE_PREFIX) for _, _, subject in found} == {
        *stray[:2],
        "recordings/date=2026-13-45/",
        "conflicts/loose.WAV",
        "quarantine/old/",
        *stray[5:],
    }
    assert {date for date, _, _ in found} == {"", str(MIDDLE)}
    assert "(5 without a date) on 1 of 3 dates" in copy.out
    assert [copy.result["sum"][name] for name in ("doubts", "doubtful_dates", "strays")] == [7, 1, 5]


def test_what_was_kept_apart_from_a_recording_is_no_stray(copy: Copy) -> None:
    recording = copy.held(MIDDLE)[0]
    folder, _, name = (recording.key or "").replace("/recordings/", "/conflicts/").rpartition("/")
    copy.put(f"{folder}/{hashlib.sha256(b'other bytes').hexdigest()[:16]}-{name}", b"other bytes")
    assert copy.doubts() == set()


def test_what_is_next_to_a_manifest_or_a_part_of_the_catalog_is_named_and_stops_no_sealing(copy: Copy) -> None:
    stray = {
        f"{ARCHIVE_PREFIX}{name}"
        for name in (
            f"manifests/date={MIDDLE}/manifest-9.json.bak",
            f"manifests/date={MIDDLE}/backup/manifest-9.json",  # no manifest of the date, whatever its number
            f"catalog/date={MIDDLE}/more.parquet",  # which a query over catalog/date=*/*.parquet reads
        )
    }
    for key in stray:
        copy.put(key, b"x")
    copy.put(f"{ARCHIVE_PREFIX}catalog/date={MIDDLE}/", b"")  # as a console makes folders
    assert copy.doubts() == {(str(MIDDLE), "object_stray", key) for key in stray}
    with DagsterInstance.ephemeral() as instance:
        assert sealed_again(instance, MIDDLE, LAST)

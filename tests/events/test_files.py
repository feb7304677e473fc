"""Files of events: what is torn is told from what is whole, and what was kept is read back."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from pipelines.archive.client import make_s3_client
from pipelines.events.files import (
    EventsUnavailable,
    LocalEvents,
    day_folder,
    events_at,
    frame,
    malformed_folder,
    read_frames,
)
from sandbox.s3 import S3Endpoint
from tests.servers.atomic_moto import AtomicMoto
from tests.servers.rclone import Rclone

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DAY = date(2026, 11, 20)
FOLDER = day_folder(DAY)
RECORDS = st.lists(st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=3), max_size=6)


def lines(*numbers: int) -> list[tuple[str, bytes]]:
    return [(FOLDER, frame({"n": number})) for number in numbers]


def numbers(data: bytes) -> list[int]:
    return [event["n"] for event in read_frames(data)[0]]


@given(RECORDS, st.data())
def test_a_file_cut_off_anywhere_gives_its_whole_lines(records: list[dict[str, str]], data: st.DataObject) -> None:
    lines = [frame(record) for record in records]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    found, damaged = read_frames(whole[:cut])
    assert found == records[: whole[:cut].count(b"\n")]
    assert not damaged


@given(RECORDS.filter(len), st.data())
def test_a_byte_that_a_disk_changed_is_never_taken_for_an_event(
    records: list[dict[str, str]], data: st.DataObject
) -> None:
    whole = bytearray(b"".join(map(frame, records)))
    position = data.draw(st.integers(0, len(whole) - 2))  # without its last line break a line is one that was cut off
    whole[position] ^= data.draw(st.integers(1, 255))
    found, damaged = read_frames(bytes(whole))
    assert all(event in records for event in found)
    assert len(found) < len(records)
    assert damaged


def test_what_was_written_is_read_back_in_its_order(tmp_path: Path) -> None:
    keeper, stored = LocalEvents(tmp_path / "e"), LocalEvents(tmp_path / "e")
    assert stored.days() == []
    keeper.write(lines(1, 2))
    ((name, size),) = stored.files(FOLDER).items()
    keeper.write(lines(3))
    assert stored.days() == [DAY]
    assert [numbers(stored.read(file)) for file in stored.files(FOLDER)] == [[1, 2], [3]]
    assert size == len(stored.read(name))
    assert (tmp_path / "e" / name).stat().st_mode & 0o007 == 0


def test_a_batch_of_thousands_of_lines_takes_no_longer_than_its_bytes_do(tmp_path: Path) -> None:
    line, began = b"x" * 1023 + b"\n", time.process_time()
    LocalEvents(tmp_path).write([(FOLDER, line)] * 8000)
    assert time.process_time() - began < 2
    assert list(LocalEvents(tmp_path).files(FOLDER).values()) == [8000 * len(line)]


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """No file of this process may grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_said_and_leaves_no_part_of_a_file(tmp_path: Path, small_files: Callable[[int], None]) -> None:
    keeper, stored = LocalEvents(tmp_path), LocalEvents(tmp_path)
    keeper.write(lines(1))
    small_files(40)
    with pytest.raises(EventsUnavailable, match=r"cannot write .*File too large; check the folder that EVENTS_URL"):
        keeper.write(lines(2, 3, 4))
    small_files(1 << 20)
    keeper.write(lines(5))
    assert [numbers(stored.read(file)) for file in stored.files(FOLDER)] == [[1], [5]]
    assert len(list((tmp_path / FOLDER).iterdir())) == 2


def test_a_place_that_cannot_be_written_is_known_before_the_first_event(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EventsUnavailable, match="check the folder that EVENTS_URL names"):
        LocalEvents(tmp_path / "file" / "events").probe(write=True)
    LocalEvents(tmp_path / "good").probe(write=True)
    assert not [path for path in (tmp_path / "good").rglob("*") if path.is_file()]


def test_a_disk_without_hard_links_is_known_before_the_first_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(EventsUnavailable, match="Operation not permitted; check the folder that EVENTS_URL names"):
        LocalEvents(tmp_path).probe(write=True)


def test_whatever_the_umask_events_and_what_was_none_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keeper = LocalEvents(tmp_path / "new" / "events")
        keeper.probe(write=True)
        keeper.write([*lines(1), (malformed_folder(date(2026, 11, 21)), frame({"why": "…"}))])
    finally:
        os.umask(before)
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*")}
    assert modes == {True: 0o700, False: 0o600}
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*")} == {0o700, 0o600}


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    with Rclone(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def moto() -> Iterator[AtomicMoto]:
    with AtomicMoto() as server:
        yield server


@pytest.fixture(params=["rclone", "moto"])
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Client:
    server: S3Endpoint = request.getfixturevalue(request.param)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    client = make_s3_client(max_connections=4)
    with suppress(ClientError):
        client.create_bucket(Bucket="events-bucket")
    return client


def test_a_bucket_gets_one_object_a_batch_and_date(s3: S3Client) -> None:
    keeper, stored = (
        events_at(url, lambda: s3) for url in ("s3://events-bucket/some/prefix", "s3://events-bucket/some/prefix/")
    )
    keeper.probe(write=True)
    other = day_folder(date(2026, 11, 21))
    keeper.write([*lines(1, 2), (other, frame({"n": 3})), *lines(4)])
    keeper.write(lines(5))
    assert stored.days() == [DAY, date(2026, 11, 21)]
    assert [numbers(stored.read(file)) for file in stored.files(FOLDER)] == [[1, 2, 4], [5]]
    assert stored.files(day_folder(date(2026, 1, 1))) == {}
    assert all(size == len(stored.read(name)) for name, size in stored.files(FOLDER).items())


def test_a_bucket_that_is_not_there_is_said_in_a_sentence(s3: S3Client) -> None:
    with pytest.raises(EventsUnavailable, match=r"NoSuchBucket.*check EVENTS_URL"):
        events_at("s3://no-such-bucket/p", lambda: s3).write(lines(1))
    with pytest.raises(EventsUnavailable, match=r"cannot list .* in the bucket no-such-bucket"):
        events_at("s3://no-such-bucket/p", lambda: s3).files(FOLDER)


def test_a_bucket_that_lists_but_takes_no_object_is_known_before_the_first_event(s3: S3Client) -> None:
    keeper = events_at("s3://events-bucket/read-only", lambda: s3)
    answer_with("AccessDenied", s3, "PutObject")
    with pytest.raises(EventsUnavailable, match=r"cannot write .*s3:PutObject"):
        keeper.probe(write=True)
    keeper.probe(write=False)


def test_a_probe_that_is_answered_with_a_bare_404_means_that_events_cannot_be_stored(s3: S3Client) -> None:
    answer_with("404", s3, "ListObjectsV2")
    with pytest.raises(EventsUnavailable, match="check EVENTS_URL"):
        events_at("s3://events-bucket/p", lambda: s3).probe(write=False)


def answer_with(code: str, client: S3Client, operation: str) -> None:
    def answer(**_: object) -> None:
        raise ClientError({"Error": {"Code": code}}, operation)

    client.meta.events.register(f"before-call.s3.{operation}", answer)

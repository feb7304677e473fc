"""Files of events: what is torn is told from what is whole, and what was kept is read back."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from pipelines.archive.client import make_s3_client
from pipelines.events import files
from pipelines.events.files import (
    EventsUnavailable,
    LocalEvents,
    S3Events,
    day_folder,
    frame,
    malformed_folder,
    read_frames,
)
from sandbox.s3 import LocalS3

DAY = date(2026, 11, 20)
FOLDER = day_folder(DAY)
RECORDS = st.lists(st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=3), max_size=6)


def lines(*numbers: int) -> list[tuple[str, bytes]]:
    return [(FOLDER, frame({"n": number})) for number in numbers]


def numbers(data: bytes) -> list[int]:
    return [one["n"] for one in read_frames(data).records]


@given(RECORDS, st.data())
def test_a_file_cut_off_anywhere_gives_its_whole_lines_and_goes_on_from_there(
    records: list[dict[str, str]], data: st.DataObject
) -> None:
    whole = b"".join(map(frame, records))
    cut = data.draw(st.integers(0, len(whole)))
    first = read_frames(whole[:cut])
    rest = read_frames(whole[first.settled :])
    assert not first.damaged
    assert [*first.records, *rest.records] == records
    assert first.settled + rest.settled == len(whole)


@given(RECORDS.filter(len), st.data())
def test_a_byte_that_a_disk_changed_is_never_taken_for_an_event(
    records: list[dict[str, str]], data: st.DataObject
) -> None:
    whole = bytearray(b"".join(map(frame, records)))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    found = read_frames(bytes(whole))
    assert all(one in records for one in found.records)
    assert len(found.records) < len(records)
    assert found.damaged or found.settled < len(whole)
    # What is damaged is read again by every run, so that it stays visible until somebody looks.
    assert found.settled <= place


def test_what_was_written_is_read_back_in_its_order_from_one_file(tmp_path: Path) -> None:
    keeper, stored = LocalEvents(tmp_path / "e"), LocalEvents(tmp_path / "e")
    assert stored.days() == []
    keeper.write(lines(1, 2))
    (file,) = stored.files(FOLDER)
    keeper.write(lines(3))
    (grown,) = stored.files(FOLDER)
    assert stored.days() == [DAY]
    assert numbers(stored.read(grown.name)) == [1, 2, 3]
    assert numbers(stored.read(grown.name, file.size)) == [3]
    assert (tmp_path / "e" / grown.name).stat().st_mode & 0o007 == 0


def test_a_batch_of_thousands_of_lines_takes_no_longer_than_its_bytes_do(tmp_path: Path) -> None:
    line, began = b"x" * 1023 + b"\n", time.process_time()
    LocalEvents(tmp_path).write([(FOLDER, line)] * 8000)
    assert time.process_time() - began < 2
    (file,) = LocalEvents(tmp_path).files(FOLDER)
    assert file.size == 8000 * len(line)


def test_a_large_or_old_file_is_left_for_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, stored = LocalEvents(tmp_path), LocalEvents(tmp_path)
    keeper.write(lines(1))
    with monkeypatch.context() as an_hour_later:
        an_hour_later.setattr(files, "FILE_SECONDS", 0)
        keeper.write(lines(2))
    monkeypatch.setattr(files, "FILE_BYTES", 10)
    keeper.write(lines(3))
    assert [numbers(stored.read(file.name)) for file in stored.files(FOLDER)] == [[1], [2], [3]]


def test_two_writers_never_share_a_file(tmp_path: Path) -> None:
    one, two = LocalEvents(tmp_path), LocalEvents(tmp_path)
    for number in range(5):
        one.write(lines(number))
        two.write(lines(number + 100))
    found = [numbers(LocalEvents(tmp_path).read(file.name)) for file in LocalEvents(tmp_path).files(FOLDER)]
    assert sorted(found) == [[0, 1, 2, 3, 4], [100, 101, 102, 103, 104]]


def test_events_of_many_dates_keep_no_file_open(tmp_path: Path) -> None:
    keeper = LocalEvents(tmp_path)
    days = [day_folder(date(2026, 1, 1 + number)) for number in range(30)]
    keeper.write([(folder, frame({"n": 1})) for folder in days])
    open_files = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink() and link.exists()]
    assert sum(file.is_relative_to(tmp_path) for file in open_files) == 0
    assert len(LocalEvents(tmp_path).days()) == 30


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """No file of this process may grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_said_and_nothing_is_written_behind_a_torn_line(
    tmp_path: Path, small_files: Callable[[int], None]
) -> None:
    keeper, stored = LocalEvents(tmp_path), LocalEvents(tmp_path)
    keeper.write(lines(1))
    small_files(40)
    with pytest.raises(EventsUnavailable, match=r"cannot write .*File too large"):
        keeper.write(lines(2, 3, 4))
    (first,) = stored.files(FOLDER)
    # A reader may come now, and never look again at what it has read.
    read_to = read_frames(stored.read(first.name)).settled
    for _ in range(5):
        small_files(10)
        with pytest.raises(EventsUnavailable):
            keeper.write(lines(5))
    small_files(1 << 20)
    keeper.write(lines(6))
    one, two = stored.files(FOLDER)
    assert read_frames(stored.read(one.name, read_to)).records == []
    assert numbers(stored.read(two.name)) == [6]


def test_a_file_that_somebody_removed_is_not_written_to_unseen(tmp_path: Path) -> None:
    keeper, stored = LocalEvents(tmp_path), LocalEvents(tmp_path)
    keeper.write(lines(1))
    (file,) = stored.files(FOLDER)
    (tmp_path / file.name).unlink()
    with pytest.raises(EventsUnavailable, match="was removed"):
        keeper.write(lines(2))
    keeper.write(lines(3))
    assert [numbers(stored.read(one.name)) for one in stored.files(FOLDER)] == [[3]]


def test_a_place_that_cannot_be_written_is_known_before_the_first_event(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EventsUnavailable, match="check EVENTS_URL"):
        LocalEvents(tmp_path / "file" / "events").probe()
    LocalEvents(tmp_path / "good").probe()
    assert not list((tmp_path / "good").iterdir())


def test_whatever_the_umask_events_and_what_was_none_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keeper = LocalEvents(tmp_path / "new" / "events")
        keeper.probe()
        keeper.write([*lines(1), (malformed_folder(date(2026, 11, 21)), frame({"why": "…"}))])
    finally:
        os.umask(before)
    modes = {one.is_dir(): one.stat().st_mode & 0o777 for one in (tmp_path / "new").rglob("*")}
    assert modes == {True: 0o700, False: 0o600}
    assert {one.stat().st_mode & 0o777 for one in (tmp_path / "new").rglob("*")} == {0o700, 0o600}


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with LocalS3(tmp_path_factory.mktemp("s3")) as server:
        yield server.environment()


@pytest.fixture(scope="module")
def moto(rclone: dict[str, str]) -> Iterator[dict[str, str]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, str(Path(__file__).parents[1] / "atomic_moto.py"), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        assert time.monotonic() < deadline, "moto_server does not listen"
        time.sleep(0.05)
    yield {**rclone, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}"}
    process.terminate()
    process.wait(10)


@pytest.fixture(params=["rclone", "moto"])
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in request.getfixturevalue(request.param).items():
        monkeypatch.setenv(name, value)
    client = make_s3_client(max_connections=4)
    with suppress(ClientError):
        client.create_bucket(Bucket="events-bucket")
    return client


def test_a_bucket_gets_one_object_a_batch_and_date(s3: Any) -> None:
    keeper, stored = S3Events(s3, "events-bucket", "some/prefix"), S3Events(s3, "events-bucket", "some/prefix/")
    keeper.probe()
    other = day_folder(date(2026, 11, 21))
    keeper.write([*lines(1, 2), (other, frame({"n": 3})), *lines(4)])
    keeper.write(lines(5))
    assert stored.days() == [DAY, date(2026, 11, 21)]
    assert [numbers(stored.read(file.name)) for file in stored.files(FOLDER)] == [[1, 2, 4], [5]]
    assert stored.files(day_folder(date(2026, 1, 1))) == []
    (file, _) = stored.files(FOLDER)
    assert file.size == len(stored.read(file.name))


def test_a_bucket_that_is_not_there_is_said_in_a_sentence(s3: Any) -> None:
    with pytest.raises(EventsUnavailable, match=r"NoSuchBucket.*correct EVENTS_URL"):
        S3Events(s3, "no-such-bucket", "p").write(lines(1))
    with pytest.raises(EventsUnavailable, match=r"cannot list .* in the bucket no-such-bucket"):
        S3Events(s3, "no-such-bucket", "p").files(FOLDER)

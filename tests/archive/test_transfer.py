"""A recording is stored once with its proof, whatever has its key already."""

import io
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5, sha256
from pathlib import Path

import pytest

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import Conflict, NameTaken, StorageRefused, StorageUnavailable, StoreDamaged
from pipelines.archive.keys import apart_key, copy_key, metadata_text
from pipelines.archive.transfer import Stored, Upload, adopt, store
from tests.servers.rclone import Rclone
from tests.servers.s3_proxy import S3Proxy

Build = Callable[..., bytes]
UploadOf = Callable[..., Upload]


def keys_in(bucket: Bucket) -> set[str]:
    return {key for key, _ in bucket.list_keys(bucket.prefix) if not key.startswith(f"{bucket.prefix}probes/")}


def put_foreign(bucket: Bucket, key: str, body: bytes) -> None:
    """An object without any metadata of ours."""
    bucket.put(key, body, content_type="audio/wav")


def test_a_recording_is_stored_once_with_what_proves_it(bucket: Bucket, upload_of: UploadOf, wav: Build) -> None:
    body = wav()
    upload = upload_of(body)
    stored = store(bucket, upload, io.BytesIO(body))
    assert (stored.key, stored.size, stored.sha256, stored.adopted) == (upload.key, len(body), upload.sha256, False)
    facts = bucket.head(upload.key)
    assert facts is not None
    assert (facts.size, facts.etag, facts.sha256) == (
        upload.size,
        md5(body, usedforsecurity=False).hexdigest(),
        upload.sha256,
    )
    assert facts.recording_id == metadata_text(upload.recording_id)
    assert bucket.hash_object(upload.key).sha256 == upload.sha256
    again = store(bucket, upload, io.BytesIO(body))
    assert again == Stored(stored.key, stored.size, stored.sha256, stored.etag, stored.version_id, adopted=True)
    assert keys_in(bucket) == {upload.key}


def test_a_body_too_large_for_memory_is_sent_as_a_file(bucket: Bucket, upload_of: UploadOf, tmp_path: Path) -> None:
    body = random.Random(1).randbytes(9 << 20)
    path = tmp_path / "spooled"
    path.write_bytes(body)
    with path.open("rb") as file:
        file.seek(1000)
        stored = store(bucket, upload_of(body), file)
    assert bucket.hash_object(stored.key).sha256 == sha256(body).hexdigest()


@pytest.mark.parametrize("recording_id", ["1/ü \u202e%2f\n\0.WAV", "1/" + "x" * 3000, "\ud800", ""])
def test_a_hostile_id_is_adopted_by_itself_alone(bucket: Bucket, upload_of: UploadOf, recording_id: str) -> None:
    upload = upload_of(b"audio", recording_id=recording_id)
    store(bucket, upload, io.BytesIO(b"audio"))
    assert store(bucket, upload, io.BytesIO(b"audio")).adopted
    with pytest.raises(NameTaken):
        store(bucket, upload_of(b"audio", recording_id=recording_id + "x"), io.BytesIO(b"audio"))


def test_other_bytes_of_the_same_recording_are_kept_apart(bucket: Bucket, upload_of: UploadOf) -> None:
    old, new = upload_of(b"old audio"), upload_of(b"new audio")
    store(bucket, old, io.BytesIO(b"old audio"))
    for _ in range(2):  # found again by every later run, and kept once
        with pytest.raises(Conflict) as caught:
            store(bucket, new, io.BytesIO(b"new audio"))
        kept_as = copy_key("conflicts", bucket.prefix, new.key, new.sha256)
        assert all(named in str(caught.value) for named in (old.key, old.sha256, kept_as))
        assert bucket.get_bytes(old.key) == b"old audio"
        assert bucket.get_bytes(kept_as) == b"new audio"
    assert keys_in(bucket) == {old.key, kept_as}


def test_another_recording_of_the_same_name_takes_nothing_away(bucket: Bucket, upload_of: UploadOf) -> None:
    first, second = upload_of(b"one", recording_id="1/a/x.WAV"), upload_of(b"two", recording_id="1/b/x.WAV")
    store(bucket, first, io.BytesIO(b"one"))
    with pytest.raises(NameTaken) as caught:
        store(bucket, second, io.BytesIO(b"two"))
    assert f"under {first.key};" in str(caught.value)
    apart = upload_of(b"two", recording_id="1/b/x.WAV", key=apart_key(first.key, second.recording_id))
    assert not store(bucket, apart, io.BytesIO(b"two")).adopted
    assert bucket.get_bytes(first.key) == b"one"
    assert bucket.get_bytes(apart.key) == b"two"


def test_equal_bytes_of_another_recording_are_not_adopted(bucket: Bucket, upload_of: UploadOf) -> None:
    store(bucket, upload_of(b"same", recording_id="1/a/x.WAV"), io.BytesIO(b"same"))
    with pytest.raises(NameTaken):
        store(bucket, upload_of(b"same", recording_id="1/b/x.WAV"), io.BytesIO(b"same"))


def test_equal_bytes_without_metadata_are_adopted_and_other_ones_left_alone(
    bucket: Bucket, upload_of: UploadOf
) -> None:
    upload = upload_of(b"audio")
    put_foreign(bucket, upload.key, b"audio")
    assert store(bucket, upload, io.BytesIO(b"audio")).adopted
    with pytest.raises(NameTaken):
        store(bucket, upload_of(b"other"), io.BytesIO(b"other"))
    assert bucket.get_bytes(upload.key) == b"audio"


def test_a_server_that_forgets_metadata_does_not_make_a_second_copy(
    rclone_bucket: Bucket, upload_of: UploadOf, rclone: Rclone
) -> None:
    upload = upload_of(b"audio")
    store(rclone_bucket, upload, io.BytesIO(b"audio"))
    rclone.restart()
    facts = rclone_bucket.head(upload.key)
    assert facts is not None
    assert facts.recording_id is None  # the trap this is about
    assert store(rclone_bucket, upload, io.BytesIO(b"audio")).adopted
    assert keys_in(rclone_bucket) == {upload.key}


def damaged(bucket: Bucket, upload: Upload, content: bytes) -> None:
    """An object whose metadata tells of other bytes than it holds."""
    metadata = {"sha256": upload.sha256, "recording-id": metadata_text(upload.recording_id)}
    bucket.put_new(
        upload.key,
        content,
        sha256=sha256(content).hexdigest(),
        content_type="audio/wav",
        metadata=metadata,
    )


@pytest.mark.parametrize("change", [lambda body: body[:-1] + b"x", lambda body: body[:-3], lambda _: b""])
def test_an_object_that_is_not_what_it_says_is_never_adopted_and_costs_no_recording(
    bucket: Bucket, upload_of: UploadOf, wav: Build, change: Callable[[bytes], bytes]
) -> None:
    body = wav()
    upload = upload_of(body)
    damaged(bucket, upload, change(body))
    assert adopt(bucket, upload.key, upload.recording_id) is None
    with pytest.raises(Conflict, match=sha256(change(body)).hexdigest()):
        store(bucket, upload, io.BytesIO(body))
    assert bucket.get_bytes(copy_key("conflicts", bucket.prefix, upload.key, upload.sha256)) == body


def test_a_damaged_copy_of_a_conflict_is_named(bucket: Bucket, upload_of: UploadOf) -> None:
    store(bucket, upload_of(b"old"), io.BytesIO(b"old"))
    new = upload_of(b"new")
    put_foreign(bucket, copy_key("conflicts", bucket.prefix, new.key, new.sha256), b"???")
    with pytest.raises(StoreDamaged, match="the hash in its name"):
        store(bucket, new, io.BytesIO(b"new"))


def test_bytes_are_believed_before_metadata(bucket: Bucket, upload_of: UploadOf) -> None:
    liar, upload = upload_of(b"liar!"), upload_of(b"audio")
    damaged(bucket, liar, b"audio")
    assert store(bucket, upload, io.BytesIO(b"audio")).adopted


def test_a_put_altered_on_the_way_never_counts(proxied: Bucket, proxy: S3Proxy, upload_of: UploadOf) -> None:
    upload = upload_of(b"audio" * 100)
    proxy.orders["PUT"] = ["alter"]  # moto looks at no checksum and stores it
    with pytest.raises(StoreDamaged, match="different bytes"):
        store(proxied, upload, io.BytesIO(b"audio" * 100))
    with pytest.raises(Conflict):  # the next run keeps the true bytes next to it
        store(proxied, upload, io.BytesIO(b"audio" * 100))
    kept_as = copy_key("conflicts", proxied.prefix, upload.key, upload.sha256)
    assert proxied.get_bytes(kept_as) == b"audio" * 100


def test_a_lost_answer_ends_in_one_object_and_success(proxied: Bucket, proxy: S3Proxy, upload_of: UploadOf) -> None:
    upload = upload_of(b"audio")
    proxy.orders["PUT"] = ["lose"]
    assert store(proxied, upload, io.BytesIO(b"audio")).sha256 == upload.sha256
    assert proxied.get_bytes(upload.key) == b"audio"


def test_an_etag_that_is_no_md5_costs_a_look_at_the_bytes(proxied: Bucket, proxy: S3Proxy, upload_of: UploadOf) -> None:
    proxy.answer_headers["ETag"] = '"0123456789abcdef0123456789abcdef"'
    upload = upload_of(b"audio")
    assert not store(proxied, upload, io.BytesIO(b"audio")).adopted
    assert proxy.count("GET") == 1
    assert store(proxied, upload, io.BytesIO(b"audio")).adopted
    proxy.orders["PUT"], proxy.orders["GET"] = ["alter"], []
    with pytest.raises(StoreDamaged, match="different bytes"):
        store(proxied, upload_of(b"more", key=f"{proxied.prefix}recordings/more.WAV"), io.BytesIO(b"more"))


def test_at_amazon_an_encrypted_object_is_proven_by_its_checksum(
    amazon_bucket: Bucket, amazon_requests: list[str], amazon_headers: dict[str, str], upload_of: UploadOf
) -> None:
    amazon_headers |= {"x-amz-server-side-encryption": "aws:kms", "ETag": '"0123456789abcdef0123456789abcdef"'}
    upload = upload_of(b"audio")
    stored = store(amazon_bucket, upload, io.BytesIO(b"audio"))
    assert (stored.adopted, stored.etag) == (False, "0123456789abcdef0123456789abcdef")
    assert amazon_requests == ["PUT"]
    amazon_headers["x-amz-checksum-sha256"] = "AAAA"
    with pytest.raises(NameTaken):
        store(amazon_bucket, upload_of(b"audio", recording_id="other"), io.BytesIO(b"audio"))
    assert store(amazon_bucket, upload, io.BytesIO(b"audio")).adopted
    assert amazon_requests[-3:] == ["PUT", "HEAD", "GET"]  # an object found there is read, whatever it says


def test_an_object_that_comes_and_goes_is_not_waited_for_without_end(
    proxied: Bucket, proxy: S3Proxy, upload_of: UploadOf
) -> None:
    proxy.orders["PUT"] = [(412, "PreconditionFailed")] * 3
    with pytest.raises(StorageUnavailable, match="what deletes"):
        store(proxied, upload_of(b"audio"), io.BytesIO(b"audio"))


def test_a_store_without_the_right_to_write_says_which(proxied: Bucket, proxy: S3Proxy, upload_of: UploadOf) -> None:
    proxy.orders["PUT"] = [(403, "AccessDenied")]
    with pytest.raises(StorageRefused, match="s3:PutObject"):
        store(proxied, upload_of(b"audio"), io.BytesIO(b"audio"))


def test_nothing_is_ever_deleted(proxied: Bucket, proxy: S3Proxy, upload_of: UploadOf) -> None:
    store(proxied, upload_of(b"audio"), io.BytesIO(b"audio"))
    with pytest.raises(Conflict):
        store(proxied, upload_of(b"other"), io.BytesIO(b"other"))
    assert {request.method for request in proxy.requests} <= {"PUT", "GET", "HEAD"}


def test_threads_with_the_same_recording_end_with_one_object(bucket: Bucket, upload_of: UploadOf, wav: Build) -> None:
    body = wav()
    upload, gate = upload_of(body), threading.Barrier(8)

    def run(_: int) -> Stored:
        gate.wait()
        return store(bucket, upload, io.BytesIO(body))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, range(8)))
    assert sorted(result.adopted for result in results) == [False] + [True] * 7
    assert {(result.key, result.sha256, result.etag) for result in results} == {
        (upload.key, upload.sha256, md5(body, usedforsecurity=False).hexdigest())
    }
    assert keys_in(bucket) == {upload.key}


def test_threads_with_two_recordings_of_one_name_lose_neither(bucket: Bucket, upload_of: UploadOf) -> None:
    gate = threading.Barrier(8)

    def run(number: int) -> str:
        body, recording_id = b"audio %d" % number, f"1/{number}/x.WAV"
        upload = upload_of(body, recording_id=recording_id)
        gate.wait()
        try:
            return store(bucket, upload, io.BytesIO(body)).key
        except NameTaken:
            apart = upload_of(body, recording_id=recording_id, key=apart_key(upload.key, recording_id))
            return store(bucket, apart, io.BytesIO(body)).key

    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(run, range(8)))
    assert len(set(keys)) == 8
    assert [bucket.get_bytes(key) for key in keys] == [b"audio %d" % number for number in range(8)]


PROGRAM = textwrap.dedent(
    """
    import hashlib, io, sys
    from pipelines.archive.bucket import Bucket
    from pipelines.archive.client import make_s3_client
    from pipelines.archive.transfer import Upload, store

    url, name, prefix, key, size, slow = sys.argv[1:]
    body = bytes(range(256)) * (int(size) // 256)

    class Body(io.BytesIO):
        def read(self, count=-1):
            block = super().read(count)
            if slow == "slow" and self.tell() > len(body) // 2:
                print("half", flush=True)
                sys.stdin.read()
            return block

    bucket = Bucket(make_s3_client(max_connections=2, endpoint_url=url), name, prefix)
    upload = Upload(key, "1/x", "1", "mono", "r", hashlib.sha256(body).hexdigest(), len(body))
    print("ready", flush=True)
    if slow != "slow":
        sys.stdin.readline()
    print(store(bucket, upload, Body(body)).sha256, flush=True)
    """
)


def start(url: str, prefix: str, key: str, size: int, pace: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, url, "archive", prefix, key, str(size), pace]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ), bufsize=1
    )


@pytest.mark.parametrize("server", ["rclone", "moto"])
def test_processes_with_the_same_recording_both_succeed(
    server: str, prefix: str, request: pytest.FixtureRequest
) -> None:
    bucket: Bucket = request.getfixturevalue(f"{server}_bucket")
    key = f"{prefix}recordings/x.WAV"
    running = [start(request.getfixturevalue(server).url, prefix, key, 1 << 20, "fast") for _ in range(2)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    digest = sha256(bytes(range(256)) * 4096).hexdigest()
    assert [process.communicate(timeout=30)[0].strip() for process in running] == [digest, digest]
    assert keys_in(bucket) == {key}
    assert bucket.hash_object(key).sha256 == digest


@pytest.mark.parametrize("server", ["rclone", "moto"])
def test_a_process_killed_while_it_sends_leaves_nothing_behind(
    server: str, prefix: str, request: pytest.FixtureRequest
) -> None:
    bucket: Bucket = request.getfixturevalue(f"{server}_bucket")
    url, key, size = request.getfixturevalue(server).url, f"{prefix}recordings/x.WAV", 9 << 20
    process = start(url, prefix, key, size, "slow")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert process.stdout.readline() == "half\n"
    process.kill()
    process.communicate(timeout=30)
    assert bucket.head(key) is None
    again = start(url, prefix, key, size, "fast")
    output, _ = again.communicate("\n", timeout=30)
    assert output.split()[-1] == bucket.hash_object(key).sha256
    assert keys_in(bucket) == {key}


def test_a_killed_runs_recording_is_adopted_with_its_duration(bucket: Bucket, upload_of: UploadOf, wav: Build) -> None:
    body = wav(audio=b"\1\2" * 8000)
    upload = upload_of(body)
    stored = store(bucket, upload, io.BytesIO(body))
    adopted = adopt(bucket, upload.key, upload.recording_id)
    assert adopted is not None
    assert adopted[0] == Stored(stored.key, stored.size, stored.sha256, stored.etag, stored.version_id, adopted=True)
    assert adopted[1].duration_s == 1.0


def test_what_cannot_be_adopted_is_left_for_a_fetch(bucket: Bucket, upload_of: UploadOf, wav: Build) -> None:
    body = wav()
    upload = upload_of(body)
    assert adopt(bucket, upload.key, upload.recording_id) is None  # nothing there
    store(bucket, upload, io.BytesIO(body))
    assert adopt(bucket, upload.key, "another/id") is None
    foreign = f"{bucket.prefix}recordings/foreign.WAV"
    put_foreign(bucket, foreign, body)
    assert adopt(bucket, foreign, upload.recording_id) is None
    page = upload_of(b"<html>", key=f"{bucket.prefix}recordings/page.WAV")
    store(bucket, page, io.BytesIO(b"<html>"))
    assert adopt(bucket, page.key, page.recording_id) is None

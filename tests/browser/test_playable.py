"""Any stored WAV is heard as a plain 16-bit one, in any range, without reading more than that range needs."""

from __future__ import annotations

import base64
import io
import struct
import wave
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing, StoreDamaged
from pipelines.browser.playable import HEADER, PEAKS, open_playable, peaks_of
from tests.archive.conftest import build_wav
from tests.browser.site import samples, tone


class MemoryBucket(Bucket):
    """A bucket that holds one object, made when it is read; counts what was read."""

    def __init__(self, body: bytes, *, size: int | None = None) -> None:
        self.prefix, self.name = "", "memory"
        self._body, self._size = body, size or len(body)
        self.read = 0

    def read_range(self, _key: str, start: int, end: int, size: int) -> bytes:
        if size != self._size:
            raise StoreDamaged("another size")
        self.read += end - start
        return self._body[start:end].ljust(end - start, b"\0")


def heard(body: bytes) -> np.ndarray[Any, Any]:
    playable = open_playable(MemoryBucket(body), "k", len(body))
    return samples(playable.read(0, playable.size))


RAMP = np.array([-32768, -1000, -1, 0, 1, 1000, 20000, 32767], dtype=np.int16)


@pytest.mark.parametrize(
    ("bits", "tag", "audio", "magic"),
    [
        (16, 1, RAMP.astype("<i2").tobytes(), b"RIFF"),
        (16, 1, RAMP.astype(">i2").tobytes(), b"RIFX"),
        (24, 1, b"".join(b"\x7f" + struct.pack("<h", each) for each in RAMP), b"RIFF"),
        (24, 1, b"".join(struct.pack(">h", each) + b"\x7f" for each in RAMP), b"RIFX"),
        (32, 1, (RAMP.astype("<i4") * 65536).tobytes(), b"RIFF"),
        (16, 1, RAMP.astype("<i2").tobytes(), b"RF64"),
    ],
)
def test_linear_formats_keep_their_sixteen_upper_bits(bits: int, tag: int, audio: bytes, magic: bytes) -> None:
    assert heard(build_wav(bits=bits, tag=tag, audio=audio, magic=magic)).tolist() == RAMP.tolist()


def test_eight_bits_and_floats_become_sixteen_bits() -> None:
    assert heard(build_wav(bits=8, audio=bytes([0, 128, 255]))).tolist() == [-32768, 0, 32512]
    floats = np.array([-2, -1, 0, 0.5, np.nan], "<f4").tobytes()
    assert heard(build_wav(bits=32, tag=3, audio=floats)).tolist() == [-32767, -32767, 0, 16383, 0]


def test_g711_is_decoded_as_its_standard_says() -> None:
    # Points of ITU-T G.711, scaled to 16 bits as sox and ffmpeg do.
    ulaw = {0xFF: 0, 0x7F: 0, 0x80: 32124, 0x00: -32124, 0xFE: 8, 0xEF: 132, 0x6F: -132, 0xC0: 1884}
    assert heard(build_wav(bits=8, tag=7, audio=bytes(ulaw))).tolist() == list(ulaw.values())
    alaw = {0xD5: 8, 0x55: -8, 0xAA: 32256, 0x2A: -32256, 0xD4: 24, 0x80: 5504, 0x85: 4224}
    assert heard(build_wav(bits=8, tag=6, audio=bytes(alaw))).tolist() == list(alaw.values())


def test_chunks_before_and_after_the_audio_are_left_out() -> None:
    audio = RAMP.astype("<i2").tobytes()
    body = build_wav(audio=audio, extensible=True, before=((b"LIST", b"odd"),), after=((b"LIST", b"x" * 99),))
    assert heard(body).tolist() == RAMP.tolist()


@given(st.integers(0, 2000), st.integers(0, 2000), st.sampled_from([(8, 7, 1), (16, 1, 2), (24, 1, 1), (24, 1, 3)]))
def test_any_range_is_that_part_of_the_whole(from_byte: int, to_byte: int, form: tuple[int, int, int]) -> None:
    bits, tag, channels = form
    audio = bytes(number * 7 % 256 for number in range(360 * bits // 8))
    body = build_wav(bits=bits, tag=tag, channels=channels, audio=audio)
    playable = open_playable(MemoryBucket(body), "k", len(body))
    whole = playable.read(0, playable.size)
    start, end = sorted((min(from_byte, playable.size), min(to_byte, playable.size)))
    assert playable.read(start, end) == whole[start:end]


def test_what_is_sent_is_a_wav_that_python_reads() -> None:
    body = tone(0.5, 440, 880)
    playable = open_playable(MemoryBucket(body), "k", len(body))
    with wave.open(io.BytesIO(playable.read(0, playable.size))) as found:
        assert (found.getnchannels(), found.getframerate(), found.getnframes()) == (2, 8000, 4000)
    assert playable.heard(HEADER, HEADER + 16000) == {"from_s": 0.0, "to_s": 0.5}


@pytest.mark.parametrize("tag", [2, 0x55, 0x31])
def test_a_codec_that_is_not_decoded_is_sent_as_it_is_stored(tag: int) -> None:
    body = build_wav(bits=4, tag=tag, block=256, byte_rate=4000, audio=b"\1" * 512)
    playable = open_playable(MemoryBucket(body), "k", len(body))
    assert playable.read(10, 200) == body[10:200]
    assert peaks_of(playable) is None


def test_four_hours_are_opened_and_heard_anywhere_by_reading_next_to_nothing() -> None:
    seconds = 4 * 3600
    head = build_wav(channels=2, audio=b"")[:44]
    data = seconds * 32000
    head = head[:4] + struct.pack("<I", 36 + data) + head[8:40] + struct.pack("<I", data)
    bucket = MemoryBucket(head, size=44 + data)
    playable = open_playable(bucket, "k", 44 + data)
    assert playable.heard(HEADER, playable.size)["to_s"] == seconds
    playable.read(playable.size - 32000, playable.size)
    assert bucket.read < 400_000


def test_the_waveform_shows_who_speaks_when() -> None:
    body = tone(4, 300, 0)
    peaks = peaks_of(open_playable(MemoryBucket(body), "k", len(body)))
    assert peaks is not None
    left, right = map(base64.b64decode, peaks["channels"])
    assert (len(left), len(right), peaks["step_s"]) == (80, 80, 0.05)
    assert min(left) > 80
    assert max(right) == 0


def test_the_waveform_of_four_hours_is_made_in_little_memory() -> None:
    seconds = 4 * 3600
    head = build_wav(channels=1, audio=b"")[:44]
    data = seconds * 16000
    head = head[:4] + struct.pack("<I", 36 + data) + head[8:40] + struct.pack("<I", data)
    largest = 0

    class Watched(MemoryBucket):
        def read_range(self, key: str, start: int, end: int, size: int) -> bytes:
            nonlocal largest
            largest = max(largest, end - start)
            return super().read_range(key, start, end, size)

    peaks = peaks_of(open_playable(Watched(head, size=44 + data), "k", 44 + data))
    assert peaks is not None
    assert [len(base64.b64decode(channel)) for channel in peaks["channels"]] == [PEAKS]
    assert largest <= 1 << 20


def test_a_range_of_an_object_is_read_from_s3_and_another_size_than_was_sealed_is_damage(bucket: Bucket) -> None:
    key = f"{bucket.prefix}x"
    bucket.put_new(key, b"0123456789", content_type="audio/wav")
    assert bucket.read_range(key, 2, 5, 10) == b"234"
    with pytest.raises(StoreDamaged):
        bucket.read_range(key, 2, 5, 11)
    with pytest.raises(KeyMissing):
        bucket.read_range(f"{key}y", 2, 5, 10)

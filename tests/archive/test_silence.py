"""Silence is heard in a channel, however long the recording and whatever else is in the file."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from pipelines.archive.silence import MIN_SECONDS, silent_channels
from pipelines.archive.wav import inspect_wav

RATE = 8000


def stereo(left: np.ndarray, right: np.ndarray, *, extra: bytes = b"") -> bytes:
    pcm = np.stack((left, right), axis=1).astype("<i2").tobytes()
    chunks = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, RATE, 4 * RATE, 4, 16) + extra
    chunks += b"data" + struct.pack("<I", len(pcm)) + pcm
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def silent(body: bytes) -> tuple[int, ...]:
    stream = io.BytesIO(body)
    return silent_channels(stream, inspect_wav(stream, len(body)))


def hiss(seconds: float, loudest: int) -> np.ndarray:
    return np.random.default_rng(7).integers(-loudest, loudest + 1, int(seconds * RATE))


def test_two_channels_with_voices_are_not_silent() -> None:
    assert silent(stereo(hiss(20, 3000), hiss(20, 3000))) == ()


@pytest.mark.parametrize(("left", "right", "expected"), [(3000, 12, (2,)), (0, 3000, (1,)), (12, 0, (1, 2))])
def test_a_channel_of_zeros_or_of_line_hiss_is_silent(left: int, right: int, expected: tuple[int, ...]) -> None:
    assert silent(stereo(hiss(20, left), hiss(20, right))) == expected


@pytest.mark.parametrize("where", [0, 1, 77_777, 160_000 - 1])
@pytest.mark.parametrize("loud", [-32768, 32767, 33, -33])
def test_one_word_anywhere_is_heard(where: int, loud: int) -> None:
    right = np.zeros(160_000, dtype=np.int64)
    right[where] = loud
    assert silent(stereo(hiss(20, 3000), right)) == ()


def test_what_is_stored_before_the_audio_is_not_listened_to() -> None:
    noise = b"LIST" + struct.pack("<I", 5001) + b"\x7f" * 5002  # an odd size, padded
    assert silent(stereo(np.zeros(8 * RATE), np.zeros(8 * RATE), extra=noise)) == (1, 2)


def test_short_recordings_are_not_judged() -> None:
    short = int(MIN_SECONDS * RATE) - 1
    assert silent(stereo(np.zeros(short), np.zeros(short))) == ()
    assert silent(stereo(np.zeros(short + 1), np.zeros(short + 1))) == (1, 2)


def test_codecs_that_are_not_plain_samples_are_not_judged() -> None:
    body = bytearray(stereo(np.zeros(8 * RATE), np.zeros(8 * RATE)))
    body[20:22] = struct.pack("<H", 7)  # mu-law, where a byte of zero is the loudest sample there is
    assert silent(bytes(body)) == ()

"""The sandbox's recordings are real audio, the same for the same path."""

from __future__ import annotations

import hashlib
import io
import wave
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from sandbox.audio import AudioStore, header_only, mp3_bytes, wav_bytes
from sandbox.calls import Recording


def a_recording(layout: Literal["mono", "stereo"], name: str = "a", duration_s: int = 5) -> Recording:
    at = datetime(2026, 3, 9, tzinfo=UTC)
    return Recording(
        path=f"1/{name}.WAV",
        account_id="1",
        uii=name,
        layout=layout,
        started_at=at,
        duration_s=duration_s,
        ready_from=at,
    )


def samples(body: bytes) -> NDArray[np.int16]:
    with wave.open(io.BytesIO(body)) as read:
        return np.frombuffer(read.readframes(read.getnframes()), "<i2").reshape(-1, read.getnchannels())


@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2)])
def test_a_recording_is_a_real_wav_of_the_calls_length(layout: Literal["mono", "stereo"], channels: int) -> None:
    body = wav_bytes(a_recording(layout))
    with wave.open(io.BytesIO(body)) as read:
        assert (read.getnchannels(), read.getframerate(), read.getsampwidth()) == (channels, 8000, 2)
        assert read.getnframes() == 5 * 8000
    assert int.from_bytes(body[4:8], "little") == len(body) - 8


def test_the_same_path_gives_the_same_bytes_and_another_path_others() -> None:
    assert wav_bytes(a_recording("mono")) == wav_bytes(a_recording("mono"))
    assert wav_bytes(a_recording("mono")) != wav_bytes(a_recording("mono", "b"))


def test_agent_and_customer_are_heard_on_different_channels_in_turn() -> None:
    sound = samples(wav_bytes(a_recording("stereo", duration_s=20))).astype(float)
    loud = np.abs(sound).reshape(-1, 800, 2).max(axis=1) > 1000  # tenths of a second
    assert loud[:, 0].mean() > 0.2
    assert loud[:, 1].mean() > 0.2
    assert (loud[:, 0] & loud[:, 1]).mean() < 0.2
    pitches = [np.argmax(np.abs(np.fft.rfft(sound[:, channel]))) / 20 for channel in (0, 1)]
    assert pitches[0] < 150 < pitches[1]


def test_mono_has_both_voices() -> None:
    sound = samples(wav_bytes(a_recording("mono", duration_s=20)))[:, 0].astype(float)
    spectrum = np.abs(np.fft.rfft(sound))
    low, high = spectrum[90 * 20 : 145 * 20].max(), spectrum[190 * 20 : 260 * 20].max()
    assert min(low, high) > 20 * np.median(spectrum)


def test_some_recordings_have_an_odd_chunk_before_their_audio() -> None:
    bodies = [wav_bytes(a_recording("mono", f"n{n}", 1)) for n in range(40)]
    odd = [body for body in bodies if body[36:40] == b"LIST"]
    assert 0 < len(odd) < 20
    for body in odd:
        assert int.from_bytes(body[40:44], "little") % 2 == 1
        assert len(samples(body)) == 8000


def test_a_store_keeps_no_more_than_it_may_and_answers_the_same() -> None:
    store = AudioStore(cache_bytes=100_000)
    recordings = [a_recording("mono", f"n{n}", 3) for n in range(5)]
    digests = [store.digest(recording) for recording in recordings]
    for recording, digest in zip(recordings, digests, strict=True):
        body = store.body(recording)
        assert (len(body), hashlib.sha256(body).hexdigest()) == (digest.size, digest.sha256)
    assert store.held_bytes <= 100_000


def test_a_header_alone_has_44_bytes_and_no_audio() -> None:
    body = header_only(a_recording("stereo"))
    assert len(body) == 44
    assert len(samples(body)) == 0


def test_an_mp3_looks_like_one() -> None:
    body = mp3_bytes(a_recording("mono"))
    assert body.startswith(b"ID3")
    assert body[10:12] == b"\xff\xfb"

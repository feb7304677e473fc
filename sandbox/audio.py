"""The recordings' bytes: real WAV files, 8 kHz, 16-bit PCM, the same for the same path.

What is heard: two voices of short bursts in turn, each on its own pitch. Stereo has the agent on the left and the
customer on the right, mono has both. Nothing here knows when or whether a file may be fetched.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sandbox.calls import Recording

SAMPLE_RATE = 8000
_CACHE_BYTES = 256 * 1024 * 1024
_SYLLABLE_S = 0.16


@dataclass(frozen=True, slots=True)
class Digest:
    """Size in bytes and SHA-256 (hex) of a recording."""

    size: int
    sha256: str


class AudioStore:
    """Makes recordings on demand and keeps the latest; threads may share it."""

    def __init__(self, cache_bytes: int = _CACHE_BYTES) -> None:
        self._bodies: OrderedDict[str, bytes] = OrderedDict()
        self._held = 0
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Size of what is kept."""
        return self._held

    def body(self, recording: Recording) -> bytes:
        """The whole file."""
        with self._lock:
            if (body := self._bodies.get(recording.path)) is not None:
                self._bodies.move_to_end(recording.path)
                return body
        body = wav_bytes(recording)
        with self._lock:
            if recording.path not in self._bodies:
                self._bodies[recording.path] = body
                self._held += len(body)
                while self._held > self._cache_bytes and len(self._bodies) > 1:
                    self._held -= len(self._bodies.popitem(last=False)[1])
        return body

    def digest(self, recording: Recording) -> Digest:
        """Size and hash, computed once."""
        return _digest(recording)


@lru_cache(maxsize=100_000)
def _digest(recording: Recording) -> Digest:
    body = wav_bytes(recording)
    return Digest(len(body), hashlib.sha256(body).hexdigest())


def wav_bytes(recording: Recording) -> bytes:
    """Synthesize the file. One in eight has an odd-sized `LIST` chunk before its audio, as some recorders write."""
    key = hashlib.blake2b(recording.path.encode(), digest_size=8).digest()
    chance = np.random.default_rng(int.from_bytes(key, "big"))
    frames = recording.duration_s * SAMPLE_RATE
    turns = _turns(chance, frames)
    agent = _voice(chance, frames, pitch=float(chance.uniform(95, 140))) * turns
    customer = _voice(chance, frames, pitch=float(chance.uniform(190, 260))) * (np.float32(1) - turns)
    if recording.layout == "stereo":
        samples = np.stack((agent, customer), axis=1)
        channels = 2
    else:
        samples = (agent + customer)[:, None]
        channels = 1
    hiss = chance.integers(-12, 13, samples.shape, dtype=np.int8)
    pcm = (samples * np.float32(12_000) + hiss).astype("<i2").tobytes()
    return _riff(pcm, channels, extra=key[0] % 8 == 0)


def header_only(recording: Recording) -> bytes:
    """The 44 bytes that a recorder leaves when it records nothing."""
    return _riff(b"", 2 if recording.layout == "stereo" else 1, extra=False)


def mp3_bytes(recording: Recording) -> bytes:
    """An ID3 tag and MPEG-1 layer III frames of silence, about as long as the recording."""
    frame = b"\xff\xfb\x10\xc4" + bytes(100)  # 32 kbit/s, 44.1 kHz: 104 bytes, 26.1 ms
    return b"ID3\x03\x00\x00\x00\x00\x00\x00" + frame * max(1, int(recording.duration_s / 0.0261))


def _riff(pcm: bytes, channels: int, *, extra: bool) -> bytes:
    block = channels * 2
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, SAMPLE_RATE, SAMPLE_RATE * block, block, 16)
    note = b"LIST" + struct.pack("<I", 25) + b"INFOISFT" + struct.pack("<I", 13) + b"sandbox voice" + b"\x00"
    chunks = fmt + (note if extra else b"") + b"data" + struct.pack("<I", len(pcm)) + pcm
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def _turns(chance: np.random.Generator, frames: int) -> NDArray[np.float32]:
    """1 where the agent speaks, 0 where the customer does."""
    turns = np.zeros(frames, dtype=np.float32)
    at, speaking = 0, True
    while at < frames:
        length = int(chance.uniform(0.6, 2.4) * SAMPLE_RATE)
        turns[at : at + length] = float(speaking)
        at, speaking = at + length, not speaking
    return turns


def _voice(chance: np.random.Generator, frames: int, pitch: float) -> NDArray[np.float32]:
    """Syllables: a few harmonics of a pitch under an envelope, with pauses."""
    time = np.arange(frames, dtype=np.float32) / SAMPLE_RATE
    wave = sum(
        np.sin(np.float32(2 * np.pi * pitch * harmonic) * time) / np.float32(harmonic) for harmonic in (1, 2, 3, 5)
    )
    syllable = int(_SYLLABLE_S * SAMPLE_RATE)
    loudness = chance.uniform(0.2, 1.0, frames // syllable + 1) * (chance.random(frames // syllable + 1) > 0.15)
    envelope = np.sin(np.linspace(0, np.pi, syllable, dtype=np.float32))
    shaped = (loudness.astype(np.float32)[:, None] * envelope[None, :]).reshape(-1)[:frames]
    return np.asarray(wave * shaped / np.float32(2), dtype=np.float32)

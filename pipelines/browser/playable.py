"""A recording as browsers play it: a plain 16-bit PCM WAV, built only for the requested ranges.

Stored recordings may be A-law, µ-law, 8, 24 or 32 bit, float, big-endian, RF64, or have chunks before the audio or
streaming sizes; most browsers play only some of these. A range of the plain WAV is decoded from the stored bytes that
it needs, so nothing is read whole. Other codecs are sent as they are stored.
"""

import base64
import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray

from pipelines.archive.bucket import Bucket, ObjectReader
from pipelines.archive.wav import NotARecording, WavInfo, inspect_wav

HEADER: Final = 44
_PAGE: Final = 1 << 16
_LARGEST: Final = 0xFFFFFFFF - 36
PEAKS: Final = 12_000
_PEAKS_PER_SECOND: Final = 20
_PEAKS_BLOCK: Final = 1 << 18
_PCM, _FLOAT, _ALAW, _ULAW = 1, 3, 6, 7
_SUPPORTED: Final = {_PCM: {8, 16, 24, 32}, _FLOAT: {32, 64}, _ALAW: {8}, _ULAW: {8}}


@dataclass(frozen=True, slots=True)
class Playable:
    """A stored recording, and the WAV that is sent. `info`: its format, or None if it is sent as it is stored."""

    bucket: Bucket
    key: str
    stored_size: int
    info: WavInfo | None

    @property
    def size(self) -> int:
        """The number of bytes to send, header included."""
        return self.stored_size if self.info is None else HEADER + 2 * self.samples

    @property
    def samples(self) -> int:
        """The number of samples over all channels, in whole frames; 0 if the codec is not decoded."""
        if self.info is None:
            return 0
        return self.info.data_bytes // self._width // self.info.channels * self.info.channels

    @property
    def bytes_per_second(self) -> int:
        """The bytes sent per second of audio; 0 if that is not known."""
        return 0 if self.info is None else 2 * self.info.channels * self.info.sample_rate

    @property
    def _width(self) -> int:
        return 0 if self.info is None else self.info.bits_per_sample // 8

    def heard(self, start: int, end: int) -> dict[str, Any]:
        """Return the access log's fields for the bytes from `start` up to `end`: their seconds, if known."""
        if self.info is None:
            return {"details": {"bytes": f"{start}-{end - 1}"}}
        from_s, to_s = (round(max(0, at - HEADER) / self.bytes_per_second, 3) for at in (start, end))
        return {"from_s": from_s, "to_s": to_s}

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes to send from `start` up to `end`, whose number the caller bounds; raise the errors of
        `Bucket.read_range`.
        """
        if self.info is None:
            return self.bucket.read_range(self.key, start, end, self.stored_size)
        head = self._header()[start:end]
        first, last = max(0, start - HEADER), max(0, end - HEADER)
        if first == last:
            return head
        samples = self.decode(first // 2, (last + 1) // 2).astype("<i2").tobytes()
        return head + samples[first % 2 : first % 2 + last - first]

    def decode(self, first: int, last: int) -> NDArray[np.int16]:
        """Return the samples from `first` up to `last`, channels interleaved; only for a recording with `info`."""
        info = cast("WavInfo", self.info)
        begin = info.header_bytes + first * self._width
        raw = self.bucket.read_range(self.key, begin, begin + (last - first) * self._width, self.stored_size)
        return _decoded(raw, info)

    def _header(self) -> bytes:
        info = cast("WavInfo", self.info)
        block, data = 2 * info.channels, 2 * self.samples
        form = struct.pack("<HHIIHH", 1, info.channels, info.sample_rate, block * info.sample_rate, block, 16)
        return struct.pack("<4sI8sI16s4sI", b"RIFF", 36 + data, b"WAVEfmt ", 16, form, b"data", data)


def open_playable(bucket: Bucket, key: str, size: int) -> Playable:
    """Read a recording's headers, not its audio. `key` includes ARCHIVE_PREFIX; `size` is the sealed size in bytes.

    Raise KeyMissing, StoreDamaged for another size, or another StorageError.
    """
    try:
        info = inspect_wav(cast("BinaryIO", io.BufferedReader(ObjectReader(bucket, key, size), _PAGE)), size)
    except NotARecording:
        return Playable(bucket, key, size, None)
    decodes = info.bits_per_sample in _SUPPORTED.get(info.format_tag, ())
    found = Playable(bucket, key, size, info if decodes else None)
    return found if found.size <= _LARGEST else Playable(bucket, key, size, None)


def peaks_of(recording: Playable) -> dict[str, Any] | None:
    """Return a recording's waveform, or None if the codec is not decoded: for each channel the peaks (0 to 255) of up
    to 12,000 steps as base64, and the seconds of a step. Read the whole recording in blocks.
    """
    if recording.info is None:
        return None
    channels, rate = recording.info.channels, recording.info.sample_rate
    frames = recording.samples // channels
    step = max(1, rate // _PEAKS_PER_SECOND, -(-frames // PEAKS))
    loudest = np.zeros((channels, -(-frames // step)), dtype=np.int32)
    # Whole steps, as many as a block holds, so that each is looked at once; one step may be longer than a block.
    block = max(1, _PEAKS_BLOCK // (step * channels)) * step
    for first in range(0, frames, block):
        last = min(first + block, frames)
        samples = np.abs(recording.decode(first * channels, last * channels).astype(np.int32)).reshape(-1, channels)
        starts = np.arange(0, last - first, step)
        loudest[:, first // step : first // step + len(starts)] = np.maximum.reduceat(samples, starts, axis=0).T
    levels = np.minimum(loudest >> 7, 255).astype(np.uint8)
    return {"channels": [base64.b64encode(row.tobytes()).decode() for row in levels], "step_s": step / rate}


def _decoded(raw: bytes, info: WavInfo) -> NDArray[np.int16]:
    order, bits = ">" if info.big_endian else "<", info.bits_per_sample
    if info.format_tag == _ULAW:
        return _ULAW_TABLE[np.frombuffer(raw, np.uint8)]
    if info.format_tag == _ALAW:
        return _ALAW_TABLE[np.frombuffer(raw, np.uint8)]
    if info.format_tag == _FLOAT:
        floats = np.nan_to_num(np.frombuffer(raw, f"{order}f{bits // 8}").astype(np.float64))
        return (np.clip(floats, -1, 1) * 32767).astype(np.int16)
    if bits == 8:
        return ((np.frombuffer(raw, np.uint8).astype(np.int16) - 128) << 8).astype(np.int16)
    if bits == 16:
        return np.frombuffer(raw, f"{order}i2").astype(np.int16)
    # The two most significant bytes: the others are lost in 16 bits.
    width = bits // 8
    planes = np.frombuffer(raw, np.uint8).reshape(-1, width)
    top = planes[:, :2] if info.big_endian else planes[:, width - 2 :]
    return np.ascontiguousarray(top).view(f"{order}i2").reshape(-1).astype(np.int16)


def _ulaw_table() -> NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    value = (((code & 0x0F) << 3) + 0x84 << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -value, value).astype(np.int16)


def _alaw_table() -> NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent, mantissa = (code & 0x70) >> 4, (code & 0x0F) << 4
    value = np.where(exponent == 0, mantissa + 8, (mantissa + 0x108) << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, value, -value).astype(np.int16)


_ULAW_TABLE: Final = _ulaw_table()
_ALAW_TABLE: Final = _alaw_table()

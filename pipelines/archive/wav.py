"""Is it a recording? Walks a WAV's chunks by their headers and says what it holds, or why it is none.

The audio itself is never read, so the cost does not depend on the length. Not for decoding, and not for fetching: give
it a seekable stream. Formats: RIFF/WAVE, RF64 and BW64 (EBU Tech 3306, ITU-R BS.2088), WAVE_FORMAT_EXTENSIBLE, any
codec tag.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipelines.archive.keys import Layout

__all__ = ["NotARecording", "WavInfo", "inspect_wav"]

_UNKNOWN32 = 0xFFFFFFFF
_UNKNOWN64 = 0xFFFFFFFFFFFFFFFF
# What sox writes into a pipe: 0x7FFFF000 less a part of a block as the data's size, and with the headers as the RIFF's.
_UNKNOWN_SOX = range(0x7FFFE000, 0x7FFFFFFF)
_EXTENSIBLE = 0xFFFE
_LINEAR = frozenset(
    {0x0001, 0x0003, 0x0006, 0x0007}
)  # PCM, float, A-law, u-law: bytes per second follow from the frame
_CHANNELS: dict[str, int] = {"mono": 1, "stereo": 2}
_SNIFF = 512
# A real file has under a dozen chunks. Without a bound, 4 GiB of zero bytes are 500 million empty chunks.
_MAX_CHUNKS = 4096


@dataclass(frozen=True, slots=True)
class WavInfo:
    """What a WAV's headers say. `duration_s` is in seconds, None where the codec's headers do not tell."""

    channels: int
    sample_rate: int
    bits_per_sample: int
    format_tag: int
    data_bytes: int
    duration_s: float | None
    header_bytes: int


class NotARecording(ValueError):  # noqa: N818 - the glossary's word
    """What was received is not a complete recording.

    `reason` is one of empty_body, html_body, json_body, mp3_body, not_riff, not_wave, no_fmt, bad_fmt, no_data,
    header_only, cut_off, wrong_channels.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Format:
    tag: int
    channels: int
    sample_rate: int
    byte_rate: int
    block_align: int
    bits: int

    @property
    def bytes_per_second(self) -> int:
        frame = self.channels * self.bits // 8 if self.bits % 8 == 0 else 0
        if self.tag in _LINEAR and (frame or self.block_align):
            return self.sample_rate * (frame or self.block_align)
        return self.byte_rate


def inspect_wav(stream: BinaryIO, size: int, layout: Layout | None) -> WavInfo:
    """Walk the chunks of a WAV.

    Args:
        stream: seekable, holding the file from position 0; where it stands afterwards is not said.
        size: the number of bytes received.
        layout: `mono` (one channel) or `stereo` (two); None takes either.

    Raises:
        NotARecording: with the reason.
    """
    riff_end = _riff_end(stream, size)
    form: _Format | None = None
    data64: int | None = None
    samples = 0
    for name, start, declared in _chunks(stream, 12, size):
        if name == b"data":
            if form is None:
                raise NotARecording("no_fmt", "The WAV has no fmt chunk before its data")
            length = _data_length(
                start, declared if data64 is None or declared != _UNKNOWN32 else data64, riff_end, size
            )
            _require_whole(stream, start + length, riff_end, size)
            known = length == declared or data64 is not None  # else its writer did not know the samples either
            return _info(form, layout, start, length, samples if known else 0)
        if start + declared > size:
            raise NotARecording("cut_off", "The WAV ends inside a chunk before its data")
        if name == b"fmt ":
            form = _read_format(stream, start, declared)
        elif name == b"ds64":
            riff64, data64 = _read_ds64(stream, start, declared)
            riff_end = riff64 if riff_end is None else riff_end
        elif name == b"fact" and declared >= 4:
            (samples,) = struct.unpack("<I", _read_exactly(stream, start, 4))
    if riff_end is not None and riff_end > size:
        raise NotARecording("cut_off", "The WAV ends before the length that its header gives")
    if form is None:
        raise NotARecording("no_fmt", "The WAV has no fmt chunk")
    raise NotARecording("no_data", "The WAV has no data chunk")


def _riff_end(stream: BinaryIO, size: int) -> int | None:
    """Where the RIFF chunk ends by its own word, None for a streaming size. Refuses what is no WAV by its first
    bytes.
    """
    if size == 0:
        raise NotARecording("empty_body", "The source sent an empty body")
    head = _read_exactly(stream, 0, min(size, _SNIFF))
    magic = head[:4]
    if magic not in {b"RIFF", b"RF64", b"BW64"}:
        if any(known.startswith(magic) for known in (b"RIFF", b"RF64", b"BW64")):
            raise NotARecording("cut_off", "The WAV ends inside its first four bytes")
        raise _not_riff(head)
    if size < 12:
        raise NotARecording("cut_off", "The WAV ends inside its first header")
    if head[8:12] != b"WAVE":
        raise NotARecording("not_wave", "It is a RIFF file, but not a WAVE")
    (declared,) = struct.unpack("<I", head[4:8])
    return None if declared in {0, _UNKNOWN32} or declared in _UNKNOWN_SOX else 8 + declared


def _not_riff(head: bytes) -> NotARecording:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        return NotARecording("html_body", "The source sent a web page or XML instead of a recording")
    if text.startswith((b"{", b"[")):
        return NotARecording("json_body", "The source sent JSON instead of a recording")
    if head.startswith(b"ID3") or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0):
        return NotARecording("mp3_body", "The source sent an MP3; the User-Agent must not look like a browser")
    return NotARecording("not_riff", "What the source sent does not begin as a WAV does")


def _chunks(stream: BinaryIO, position: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start of the body and declared size of each chunk whose header is in the file. Odd sizes are padded."""
    for _ in range(_MAX_CHUNKS):
        if position + 8 > size:
            return
        name, declared = struct.unpack("<4sI", _read_exactly(stream, position, 8))
        yield name, position + 8, declared
        position += 8 + declared + declared % 2


def _read_exactly(stream: BinaryIO, position: int, count: int) -> bytes:
    stream.seek(position, os.SEEK_SET)
    block = stream.read(count)
    if len(block) != count:
        raise NotARecording("cut_off", "The stream holds fewer bytes than were received")
    return block


def _read_format(stream: BinaryIO, start: int, declared: int) -> _Format:
    if declared < 16:
        raise NotARecording("bad_fmt", "The WAV's fmt chunk is too short")
    tag, channels, rate, byte_rate, align, bits = struct.unpack("<HHIIHH", _read_exactly(stream, start, 16))
    if tag == _EXTENSIBLE:
        if declared < 40:
            raise NotARecording("bad_fmt", "The WAV's extensible fmt chunk is too short")
        (tag,) = struct.unpack("<H", _read_exactly(stream, start + 24, 2))  # the GUID begins with the classic tag
    if channels == 0 or rate == 0:
        raise NotARecording("bad_fmt", "The WAV's fmt chunk gives no channel or no sample rate")
    return _Format(tag, channels, rate, byte_rate, align, bits)


def _read_ds64(stream: BinaryIO, start: int, declared: int) -> tuple[int | None, int | None]:
    """End of the RIFF chunk and size of the data by the 64-bit chunk; None where it does not tell."""
    if declared < 16:
        return None, None
    riff, data = struct.unpack("<QQ", _read_exactly(stream, start, 16))
    return (None if riff in {0, _UNKNOWN64} else 8 + riff), data


def _data_length(start: int, declared: int, riff_end: int | None, size: int) -> int:
    """How many bytes the data chunk has. A streaming size means: to the end of the RIFF chunk, or else of the file."""
    definite_end = riff_end is not None and riff_end > start
    if declared == 0 and definite_end:
        return 0  # the RIFF size goes on behind an empty data chunk: it is truly empty, not left open by its writer
    if declared in {0, _UNKNOWN32, _UNKNOWN64} or (declared in _UNKNOWN_SOX and riff_end is None):
        if riff_end is not None and definite_end:
            if riff_end > size:
                raise NotARecording("cut_off", "The WAV ends before the length that its header gives")
            return riff_end - start
        return size - start
    return declared


def _require_whole(stream: BinaryIO, data_end: int, riff_end: int | None, size: int) -> None:
    if data_end > size:
        raise NotARecording("cut_off", "The WAV ends before the length that its data chunk gives")
    if riff_end is None or riff_end <= size:
        return  # what follows the RIFF chunk is not ours to judge
    # Some writers leave out the very last pad byte, yet count it: that, and only that, may be missing.
    end = data_end
    for _, start, declared in _chunks(stream, data_end + data_end % 2, size):
        end = start + declared
    if riff_end - size != 1 or end != size:
        raise NotARecording("cut_off", "The WAV ends before the length that its header gives")


def _info(form: _Format, layout: Layout | None, start: int, length: int, samples: int) -> WavInfo:
    allowed = _CHANNELS.values() if layout is None else (_CHANNELS[layout],)
    if form.channels not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise NotARecording(
            "wrong_channels", f"A {layout or 'segment'} recording has {wanted} channel(s); this WAV has {form.channels}"
        )
    if length == 0 or (form.tag in _LINEAR and length < form.block_align):
        raise NotARecording("header_only", "The WAV has a header but no audio")
    rate = form.bytes_per_second
    if form.tag not in _LINEAR and 0 < samples < _UNKNOWN32:
        duration: float | None = samples / form.sample_rate  # compressed: only the fact chunk is exact
    else:
        duration = length / rate if rate else None
    return WavInfo(form.channels, form.sample_rate, form.bits, form.tag, length, duration, start)

"""Reader of a WAV's headers: what audio it holds, and whether the headers prove that all of it is there.

The audio itself is never read, so the cost does not depend on the length. This module does not decode, and does not
decide what happens to odd audio: any codec and any number of channels is audio. Formats: RIFF/WAVE, RIFX (big-endian),
RF64 and BW64 (EBU Tech 3306, ITU-R BS.2088), WAVE_FORMAT_EXTENSIBLE, any codec tag.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple

_UNKNOWN32 = 0xFFFFFFFF
_UNKNOWN64 = 0xFFFFFFFFFFFFFFFF
# What sox writes into a pipe: 0x7FFFF000 less a part of a block as the data's size, and with the headers as the RIFF's.
_UNKNOWN_SOX = range(0x7FFFE000, 0x7FFFFFFF)
_STREAMED = 0x7FFFE000  # a size from here on that is not reached comes from a writer that did not know it
_EXTENSIBLE = 0xFFFE
_LINEAR = frozenset({1, 3, 6, 7})  # PCM, float, A-law, u-law: bytes per second follow from the frame
# A real file has under a dozen chunks. Without a bound, 4 GiB of zero bytes are 500 million empty chunks.
_MAX_CHUNKS = 4096
_MAX_PADDING = 4096  # in bytes: more zeros than a block of a disk are silence
# A report rounds to seconds and counts ringing and hold differently: only a plain disagreement is worth a warning.
_DURATION_TOLERANCE_S = 5.0
_DURATION_TOLERANCE_SHARE = 0.2

_NAMES = frozenset(b"data|fmt |fact|LIST|bext|JUNK|iXML|axml|cue |PEAK|smpl|inst|id3 ".split(b"|"))
Proof = Literal["whole", "nothing", "cut_off"]
_MAGICS: dict[bytes, Literal["<", ">"]] = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">"}


@dataclass(frozen=True, slots=True)
class WavInfo:
    """The facts in a WAV's headers, compared with the bytes that were received. `data_bytes`: of audio that are there.
    `header_bytes`: before the audio. `duration_s`: None if the headers do not give it.

    `proof`: `whole` if the sizes are definite and the audio fills them; `cut_off` if, by the sizes, audio is missing;
    `nothing` if the sizes leave the end open, so that a truncated body looks the same. `disagrees`: whether a size in
    the header promises more bytes than there are.
    """

    channels: int
    sample_rate: int
    bits_per_sample: int
    format_tag: int
    data_bytes: int
    duration_s: float | None
    header_bytes: int
    big_endian: bool
    proof: Proof
    disagrees: bool


class NotARecording(ValueError):  # noqa: N818 - the glossary's word
    """The received bytes hold no recognizable audio; `reason` is a code (docs/troubleshooting.md)."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class _Format(NamedTuple):
    tag: int
    channels: int
    sample_rate: int
    byte_rate: int
    block_align: int
    bits: int


class _Headers(NamedTuple):
    """What the headers say. The audio begins at `start` and has `declared` bytes; `riff_end`: None if open."""

    order: str
    form: _Format
    riff_end: int | None
    start: int
    declared: int
    has_ds64: bool
    samples: int


def inspect_wav(stream: BinaryIO, size: int) -> WavInfo:
    """Walk the chunks of a WAV of `size` bytes in a seekable stream, or raise NotARecording with the reason."""
    headers = _read_headers(stream, size)
    form, start, riff_end = headers.form, headers.start, headers.riff_end
    is_streaming = _is_streaming(stream, headers, size)
    if headers.declared == 0 and riff_end is not None and riff_end < size - 1:
        riff_end = None  # written while the audio was still growing
    data_end = start + headers.declared
    if is_streaming:
        data_end = riff_end if riff_end is not None and riff_end > start else size
    missing = _missing(stream, data_end, riff_end, size, headers.order)
    length = min(data_end, size) - start
    if length == 0 or (form.tag in _LINEAR and length < form.block_align):
        raise NotARecording("header_only", "The WAV has a header but no audio")
    # Where sizes are unknown, the writer did not know the number of samples either.
    knows_samples = not missing and (headers.has_ds64 or not is_streaming)
    return WavInfo(
        channels=form.channels,
        sample_rate=form.sample_rate,
        bits_per_sample=form.bits,
        format_tag=form.tag,
        data_bytes=length,
        duration_s=_duration(form, length, headers.samples if knows_samples else 0),
        header_bytes=start,
        big_endian=headers.order == ">",
        proof=_proof(headers, data_end, riff_end, missing, size, is_streaming=is_streaming),
        disagrees=missing > 0,
    )


def duration_differs(expected: float | None, measured: float | None) -> bool:
    """Return whether a recording's length (s) plainly differs from the report's; False if one is unknown."""
    if expected is None or measured is None:
        return False
    return abs(measured - expected) > max(_DURATION_TOLERANCE_S, _DURATION_TOLERANCE_SHARE * expected)


def _read_headers(stream: BinaryIO, size: int) -> _Headers:
    order, riff_end = _riff(stream, size)
    form: _Format | None = None
    data64: int | None = None
    samples = 0
    for name, start, declared in _chunks(stream, 12, size, order):
        if name == b"data":
            if form is None:
                raise NotARecording("no_fmt", "The WAV has no fmt chunk before its data")
            length = data64 if data64 is not None and declared == _UNKNOWN32 else declared
            return _Headers(order, form, riff_end, start, length, data64 is not None, samples)
        if start + declared > size:
            raise NotARecording("cut_off", "The WAV ends inside a chunk before its data")
        if name == b"fmt ":
            form = _read_format(stream, start, declared, order)
        elif name == b"ds64" and declared >= 16:
            riff64, data64 = struct.unpack("<QQ", _read_exactly(stream, start, 16))
            if riff_end is None and riff64 not in {0, _UNKNOWN64}:
                riff_end = 8 + riff64
        elif name == b"fact" and declared >= 4:
            (samples,) = struct.unpack(f"{order}I", _read_exactly(stream, start, 4))
    if riff_end is not None and riff_end > size:
        raise NotARecording("cut_off", "The WAV ends before the length that its header gives")
    if form is None:
        raise NotARecording("no_fmt", "The WAV has no fmt chunk before its data")
    raise NotARecording("no_data", "The WAV has no data chunk")


def _is_streaming(stream: BinaryIO, headers: _Headers, size: int) -> bool:
    """Return whether the data's size means: to the end of the RIFF chunk, or else of the file."""
    declared, riff_end = headers.declared, headers.riff_end
    if declared in {_UNKNOWN32, _UNKNOWN64}:
        return True
    if declared in _UNKNOWN_SOX:
        return riff_end is None
    if declared != 0:
        return False
    # Zero, unless other chunks or padding follow: then the data is truly empty.
    if riff_end is not None and riff_end <= headers.start:
        riff_end = None
    return not _is_empty_data(stream, headers.start, riff_end, size, headers.order)


def _riff(stream: BinaryIO, size: int) -> tuple[str, int | None]:
    """Return the byte order and the end of the RIFF chunk according to its size, None for a streaming WAV."""
    if size == 0:
        raise NotARecording("empty_body", "The source sent an empty body")
    head = _read_exactly(stream, 0, min(size, 12))
    magic = head[:4]
    if magic not in _MAGICS:
        raise NotARecording("not_riff", "The body from the source does not begin like a WAV")
    if size < 12:
        raise NotARecording("cut_off", "The WAV ends inside its first header")
    if head[8:12] != b"WAVE":
        raise NotARecording("not_wave", "The file is RIFF, but not WAVE")
    order = _MAGICS[magic]
    (declared,) = struct.unpack(f"{order}I", head[4:8])
    return order, None if declared in {0, _UNKNOWN32} or declared in _UNKNOWN_SOX else 8 + declared


def _chunks(stream: BinaryIO, position: int, size: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, body position and declared size of each chunk with a whole header; odd sizes are padded."""
    for _ in range(_MAX_CHUNKS):
        if position + 8 > size:
            return
        name, declared = struct.unpack(f"{order}4sI", _read_exactly(stream, position, 8))
        yield name, position + 8, declared
        position += 8 + declared
        # Some writers forget the padding: no chunk's name begins with it.
        if declared % 2 and (position + 4 > size or _read_exactly(stream, position, 4) not in _NAMES):
            position += 1


def _is_empty_data(stream: BinaryIO, position: int, riff_end: int | None, size: int, order: str) -> bool:
    """Return whether only chunks or padding follow an empty data chunk."""
    first = _read_exactly(stream, position, min(size - position, _MAX_PADDING + 1))
    if first[:4] in _NAMES or (len(first) <= _MAX_PADDING and not first.strip(b"\0")):
        return True
    end = min(riff_end or size, size)
    for name, start, declared in _chunks(stream, position, end, order):
        if not (name.isascii() and name.decode("ascii").isprintable()):
            return False
        position = start + declared
    return end - 1 <= position <= end


def _read_exactly(stream: BinaryIO, position: int, count: int) -> bytes:
    stream.seek(position, os.SEEK_SET)
    block = stream.read(count)
    if len(block) != count:
        raise NotARecording("cut_off", "The stream has fewer bytes than were received")
    return block


def _read_format(stream: BinaryIO, start: int, declared: int, order: str) -> _Format:
    if declared < 16:
        raise NotARecording("bad_fmt", "The WAV's fmt chunk is too short")
    form = _Format._make(struct.unpack(f"{order}HHIIHH", _read_exactly(stream, start, 16)))
    if form.tag == _EXTENSIBLE:
        if declared < 40:
            raise NotARecording("bad_fmt", "The WAV's extensible fmt chunk is too short")
        # The GUID begins with the classic tag.
        (tag,) = struct.unpack(f"{order}H", _read_exactly(stream, start + 24, 2))
        form = form._replace(tag=tag)
    if form.channels == 0 or form.sample_rate == 0:
        raise NotARecording("bad_fmt", "The WAV's fmt chunk has no channels or no sample rate")
    return form


def _missing(stream: BinaryIO, data_end: int, riff_end: int | None, size: int, order: str) -> int:
    """Return how many of the bytes that the sizes promise are missing."""
    if data_end > size:
        return data_end - size
    if riff_end is None or riff_end <= size:
        return 0  # data after the RIFF chunk is not checked
    # Some writers leave out the very last pad byte, yet count it: that, and only that, may be missing.
    end = data_end
    for _, start, declared in _chunks(stream, data_end + data_end % 2, size, order):
        end = start + declared
    return 0 if riff_end - size == 1 and end == size else riff_end - size


def _proof(
    headers: _Headers, data_end: int, riff_end: int | None, missing: int, size: int, *, is_streaming: bool
) -> Proof:
    """Return what the declared sizes prove: `nothing`, that audio is `cut_off`, or that the file is `whole`."""
    if is_streaming and (riff_end is None or riff_end <= headers.start):
        return "nothing"
    if missing and (data_end <= size or data_end - headers.start >= _STREAMED):
        return "nothing"
    # The file has outgrown its sizes, as one whose header is written now and then; a tag of a player is short.
    if riff_end is not None and size - max(riff_end, data_end) > _MAX_PADDING:
        return "nothing"
    return "cut_off" if missing else "whole"


def _duration(form: _Format, length: int, samples: int) -> float | None:
    if form.tag not in _LINEAR and 0 < samples < _UNKNOWN32:
        return samples / form.sample_rate  # compressed: only the fact chunk is exact
    frame = form.channels * form.bits // 8 if form.bits % 8 == 0 else 0
    frame = frame or form.block_align
    rate = form.sample_rate * frame if form.tag in _LINEAR and frame else form.byte_rate
    return length / rate if rate else None

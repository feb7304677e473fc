"""A WAV is read for what it is, and no truncated one is taken for whole."""

import io
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.archive.wav import NotARecording, WavInfo, inspect_wav

Build = Callable[..., bytes]
NAMES = st.sampled_from([b"LIST", b"JUNK", b"bext", b"fact", b"PEAK", b"id3 ", b"\0\0\0\0", b"xx\xff\x01"])
CHUNKS = st.lists(st.tuples(NAMES, st.binary(max_size=21)), max_size=4).map(tuple)


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    """Every definite size there is: the ways to build a whole file."""
    magic = draw(st.sampled_from([b"RIFF", b"RIFX", b"RF64", b"BW64"]))
    channels = draw(st.sampled_from([1, 2]))
    bits = draw(st.sampled_from([8, 16, 24]))
    frames = draw(st.integers(1, 60))
    return {
        "magic": magic,
        "channels": channels,
        "bits": bits,
        "rate": draw(st.sampled_from([8000, 16000, 44100])),
        "tag": draw(st.sampled_from([1, 3, 6, 7])),
        "audio": draw(st.binary(min_size=frames * channels * bits // 8, max_size=frames * channels * bits // 8)),
        "extensible": draw(st.booleans()),
        "before": draw(CHUNKS),
        "after": draw(CHUNKS),
    }


def inspect(body: bytes) -> WavInfo:
    return inspect_wav(io.BytesIO(body), len(body))


def reason(body: bytes) -> str:
    with pytest.raises(NotARecording) as caught:
        inspect(body)
    return caught.value.reason


class Watched(io.BytesIO):
    """Notes which bytes were read."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.reads: list[tuple[int, int]] = []

    def read(self, size: int | None = -1) -> bytes:
        start = self.tell()
        block = super().read(size)
        self.reads.append((start, start + len(block)))
        return block


@given(shape=shapes())
def test_every_whole_wav_is_read_for_what_it_is(wav: Build, shape: dict[str, Any]) -> None:
    info = inspect(wav(**shape))
    assert (info.channels, info.sample_rate, info.bits_per_sample) == (shape["channels"], shape["rate"], shape["bits"])
    assert info.format_tag == shape["tag"]
    assert info.data_bytes == len(shape["audio"])
    assert info.duration_s == pytest.approx(len(shape["audio"]) * 8 / shape["bits"] / shape["channels"] / shape["rate"])
    assert wav(**shape)[info.header_bytes :].startswith(shape["audio"])


@settings(max_examples=60)
@given(shape=shapes())
def test_no_truncation_of_a_whole_wav_passes_for_whole(wav: Build, shape: dict[str, Any]) -> None:
    whole = wav(**shape)
    assert (inspect(whole).proof, inspect(whole).disagrees) == ("whole", False)
    parts = shape["after"] or ((b"data", shape["audio"]),)
    pad = len(parts[-1][1]) % 2  # without its very last pad byte, nothing of it is lost
    for length in range(len(whole) - pad):
        with suppress(NotARecording):
            info = inspect(whole[:length])
            assert info.disagrees, length
            # Where the audio is all there and only a chunk behind it is not, nothing is proved either way.
            audio_is_there = length >= info.header_bytes + len(shape["audio"])
            assert info.proof == ("nothing" if audio_is_there else "cut_off"), length
    assert inspect(whole[: len(whole) - pad]).proof == "whole"


@settings(max_examples=300)
@given(st.binary(max_size=300), st.sampled_from([b"", b"RIFF", b"RIFF\x24\0\0\0WAVE", b"RF64\xff\xff\xff\xffWAVEds64"]))
def test_random_bytes_never_crash_it(body: bytes, start: bytes) -> None:
    with suppress(NotARecording):
        inspect(start + body)


@settings(max_examples=300)
@given(shape=shapes(), where=st.floats(0, 1), value=st.binary(min_size=1, max_size=8))
def test_an_altered_header_never_crashes_it(wav: Build, shape: dict[str, Any], where: float, value: bytes) -> None:
    body = bytearray(wav(**shape))
    position = int(where * (len(body) - len(value)))
    body[position : position + len(value)] = value
    try:
        info = inspect(bytes(body))
    except NotARecording:
        return
    assert 0 < info.data_bytes <= len(body)


@given(shape=shapes())
def test_the_audio_is_never_read(wav: Build, shape: dict[str, Any]) -> None:
    audio = bytes(5000 * shape["channels"] * shape["bits"] // 8)
    stream = Watched(wav(**shape | {"audio": audio}))
    info = inspect_wav(stream, len(stream.getvalue()))
    # The first look is 512 bytes, to name what is no WAV; nothing behind it is audio.
    inside = [(a, b) for a, b in stream.reads if b > max(info.header_bytes, 512) and a < info.header_bytes + len(audio)]
    assert inside == []


@pytest.mark.parametrize(
    ("riff", "data"), [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0, 0xFFFFFFFF), (0xFFFFFFFF, 0), (36, 0)]
)
def test_streaming_sizes_mean_to_the_end_of_the_file(wav: Build, riff: int, data: int) -> None:
    info = inspect(wav(audio=b"\1\2" * 8000, riff_size=riff, data_size=data))
    assert info.data_bytes == 16000
    assert (info.proof, info.disagrees) == ("nothing", False)
    assert info.duration_s == pytest.approx(1.0)


def test_a_streamed_rf64_means_to_the_end_of_the_file(wav: Build) -> None:
    for sizes in ((0, 0), (2**64 - 1, 2**64 - 1)):
        assert inspect(wav(magic=b"RF64", audio=b"\1\2" * 8000, ds64=sizes)).data_bytes == 16000


def test_a_riff_with_one_definite_size_is_checked_against_it(wav: Build) -> None:
    whole = wav(audio=b"\1\2" * 100, data_size=0xFFFFFFFF)
    assert (inspect(whole).data_bytes, inspect(whole).proof) == (200, "whole")
    assert inspect(whole[:-1]).proof == "cut_off"
    assert inspect(wav(audio=b"\1\2" * 100, riff_size=0)).proof == "whole"
    assert inspect(wav(audio=b"\1\2" * 100, riff_size=0)[:-1]).proof == "cut_off"


@pytest.mark.parametrize(
    ("riff", "data", "proof"),
    [
        (44 + 200, 200, "nothing"),
        (5000, 200, "nothing"),
        (36 + 216, 216, "cut_off"),
        (0x80000024, 0x80000000, "nothing"),
        (0x7FFFFFFF, 0xFFFFFFFF, "nothing"),
    ],
)
def test_sizes_that_promise_more_than_there_is_disagree(wav: Build, riff: int, data: int, proof: str) -> None:
    info = inspect(wav(audio=b"\1\2" * 100, riff_size=riff, data_size=data))
    assert (info.disagrees, info.proof, info.data_bytes) == (True, proof, 200)


def test_a_big_endian_wav_is_read_in_its_own_order(wav: Build) -> None:
    info = inspect(wav(magic=b"RIFX", channels=2, audio=b"\1\2" * 16000))
    assert (info.big_endian, info.channels, info.sample_rate, info.duration_s) == (True, 2, 8000, 1.0)


def test_bytes_behind_the_riff_chunk_are_fine(wav: Build) -> None:
    assert inspect(wav() + b"garbage that is no chunk at all").data_bytes == 800
    assert inspect(wav(after=((b"LIST", b"x" * 30),), riff_size=100)).data_bytes == 800


def test_audio_whose_size_was_never_filled_in_is_audio_to_the_end_of_the_riff_chunk(wav: Build) -> None:
    body = wav(audio=b"\1\2" * 100, data_size=0)
    assert (inspect(body).data_bytes, inspect(body).proof) == (200, "whole")
    assert inspect(body[:-1]).proof == "cut_off"
    assert inspect(wav(audio=bytes(5000), data_size=0)).data_bytes == 5000  # silence


@pytest.mark.parametrize("audio", [b"\1\2" * 100, bytes(100) + b"\1\2" * 50])
def test_a_riff_size_from_before_the_last_audio_proves_nothing(wav: Build, audio: bytes) -> None:
    body = wav(audio=audio, data_size=0, riff_size=100)
    assert (inspect(body).data_bytes, inspect(body).proof) == (200, "nothing")
    assert (inspect(body[:-50]).data_bytes, inspect(body[:-50]).proof) == (150, "nothing")


@pytest.mark.parametrize("cut", [0, 1, 5000])
def test_sizes_of_a_header_that_the_audio_has_outgrown_prove_nothing(wav: Build, cut: int) -> None:
    audio = bytes(range(1, 201)) * 100
    body = wav(audio=audio, riff_size=36 + 4000, data_size=4000)
    info = inspect_wav(io.BytesIO(body), len(body) - cut)
    assert (info.proof, info.disagrees) == ("nothing", False)


def test_data_of_an_exact_size_is_whole_though_the_riff_size_was_never_filled_in(wav: Build) -> None:
    body = wav(audio=bytes(range(1, 201)) * 100, riff_size=36)
    assert inspect_wav(io.BytesIO(body), len(body)).proof == "whole"
    assert inspect_wav(io.BytesIO(body), len(body) - 5000).proof == "cut_off"


@pytest.mark.parametrize("name", [b"fmt ", b"iXML", b"cue "])
def test_a_chunk_of_any_usual_name_is_found_behind_one_without_its_padding(wav: Build, name: bytes) -> None:
    whole = wav(before=((name, b"abcdefghijklmnopqrst"),) if name != b"fmt " else ())
    odd = whole[:12] + b"LIST" + struct.pack("<I", 3) + b"INF" + whole[12:]
    body = odd[:4] + struct.pack("<I", len(odd) - 8) + odd[8:]
    assert inspect_wav(io.BytesIO(body), len(body)).proof == "whole"


@pytest.mark.parametrize("riff", [None, 0, 36])
@pytest.mark.parametrize("padding", [4, 64, 4096])
def test_padding_behind_an_empty_data_chunk_is_no_audio(wav: Build, padding: int, riff: int | None) -> None:
    assert reason(wav(audio=bytes(padding), data_size=0, riff_size=riff)) == "header_only"


@pytest.mark.parametrize("behind", [b"LIST\x3c\0\0\0INFOab", b"LIST\x04\0\0\0INFO" + bytes(20)])
def test_a_chunk_behind_an_empty_data_chunk_is_no_audio_whatever_its_size(wav: Build, behind: bytes) -> None:
    assert reason(wav(audio=behind, data_size=0)) == "header_only"


def test_a_chunk_of_odd_size_without_its_padding_hides_no_audio(wav: Build) -> None:
    padded = wav(audio=b"\1\2" * 100, before=((b"LIST", b"INFOabc"),))
    at = padded.index(b"INFOabc\0")
    bare = bytearray(padded[: at + 7] + padded[at + 8 :])
    struct.pack_into("<I", bare, 4, len(bare) - 8)
    assert (inspect(bytes(bare)).data_bytes, inspect(bytes(bare)).proof) == (200, "whole")
    assert inspect(bytes(bare[:-1])).proof == "cut_off"


@pytest.mark.parametrize("extra", [b"", b"LIST\x04\0\0\0abcd"])
def test_a_header_without_audio_is_no_recording(wav: Build, extra: bytes) -> None:
    assert reason(wav(audio=b"")) == "header_only"
    after = ((b"LIST", b"abcd"),) if extra else ()
    assert reason(wav(audio=b"", after=after)) == "header_only"
    assert reason(wav(audio=b"", riff_size=0xFFFFFFFF, data_size=0xFFFFFFFF)) == "header_only"
    assert reason(wav(audio=b"\1")) == "header_only"


@pytest.mark.parametrize(
    ("tag", "bits", "rate", "seconds"),
    [(6, 8, 8000, 1.0), (7, 8, 8000, 1.0), (49, 0, 1625, 8000 / 1625), (17, 4, 4055, 8000 / 4055)],
)
def test_telephone_codecs_are_recordings(wav: Build, tag: int, bits: int, rate: int, seconds: float) -> None:
    info = inspect(wav(tag=tag, bits=bits, audio=b"\x55" * 8000, byte_rate=rate, block=1 if bits == 8 else 65))
    assert info.format_tag == tag
    assert info.duration_s == pytest.approx(seconds)


def test_a_compressed_recordings_length_is_in_its_fact_chunk(wav: Build) -> None:
    fact = ((b"fact", struct.pack("<I", 24000)),)
    assert inspect(wav(tag=49, bits=0, block=65, byte_rate=1, before=fact)).duration_s == pytest.approx(3.0)


def test_a_duration_nobody_tells_is_none(wav: Build) -> None:
    assert inspect(wav(tag=49, bits=0, block=65, byte_rate=0)).duration_s is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "empty_body"),
        (b"<!DOCTYPE html><html>", "not_riff"),
        (b"\x00\x01\x02\x03", "not_riff"),
        (b"RI", "not_riff"),
        (b"RIFF\x24\0\0\0WA", "cut_off"),
        (b"RIFF\x24\0\0\0AVI LIST", "not_wave"),
        (b"RIFF\x04\0\0\0WAVE", "no_fmt"),
        (b"RIFF\x0c\0\0\0WAVEdata\0\0\0\0", "no_fmt"),
        (b"RIFF\x14\0\0\0WAVEfmt \x08\0\0\0\1\0\1\0\0\0\0\0", "bad_fmt"),
        (b"RIFF\x1c\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16), "no_data"),
        (b"RIFF\x1c\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 0, 8000, 16000, 2, 16), "bad_fmt"),
        (b"RIFF\x1c\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 0xFFFE, 1, 8000, 16000, 2, 16), "bad_fmt"),
    ],
)
def test_what_is_no_recording_is_named(body: bytes, expected: str) -> None:
    assert reason(body) == expected


def test_a_stream_shorter_than_received_is_cut_off(wav: Build) -> None:
    with pytest.raises(NotARecording) as caught:
        inspect_wav(io.BytesIO(wav()[:30]), len(wav()))
    assert caught.value.reason == "cut_off"


def test_endless_empty_chunks_end(wav: Build) -> None:
    stream = Watched(b"RIFF\0\0\0\0WAVE" + bytes(1_000_000))
    with pytest.raises(NotARecording):
        inspect_wav(stream, 1_000_012)
    assert len(stream.reads) < 5000


def test_a_refusal_never_quotes_the_body() -> None:
    for body in (b"<html>+15551234567", b'{"ani": "+15551234567"}', b"+15551234567"):
        with pytest.raises(NotARecording) as caught:
            inspect(body)
        assert "555" not in str(caught.value)

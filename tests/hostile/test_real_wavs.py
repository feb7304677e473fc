"""Files as other programs write them, and as their test suites break them: no good one refused, no broken one taken.

The variants are those of the suites of sox, libsndfile, scipy, Python's wave, SoundFile and Go's wav: every sample
format, header chunks of every sort in every place, odd sizes, writers that stream, and damaged ones of each kind.
"""

from __future__ import annotations

import io
import struct
import subprocess
import wave
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Literal

import numpy as np
import pytest

from pipelines.archive.wav import NotARecording, WavInfo, inspect_wav

Layout = Literal["mono", "stereo"]
RATE, FRAMES = 8000, 801  # an odd number: of 8-bit mono the data chunk needs its pad byte
GUID = bytes.fromhex("000000001000800000aa00389b71")


def chunk(name: bytes, body: bytes, *, size: int | None = None, pad: bool = True) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2 * pad)


def riff(*chunks: bytes, magic: bytes = b"RIFF", size: int | None = None) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body) if size is None else size) + body


def form(
    tag: int, channels: int, bits: int, *, align: int | None = None, extra: bytes = b"", rate: int = RATE
) -> bytes:
    frame = channels * bits // 8 if align is None else align
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits) + extra)


def extensible(tag: int, channels: int, bits: int, valid: int | None = None) -> bytes:
    extra = struct.pack("<HHIH", 22, valid or bits, 3 if channels == 2 else 4, tag) + GUID
    return form(0xFFFE, channels, bits, extra=extra)


def tone(channels: int, bits: int, *, floating: bool = False) -> bytes:
    """A sine of `FRAMES` frames in the sample format."""
    samples = np.repeat(np.sin(np.arange(FRAMES) / 5)[:, None], channels, axis=1).ravel() * 0.5
    if floating:
        return samples.astype(f"<f{bits // 8}").tobytes()
    if bits == 8:
        return (samples * 127 + 128).astype(np.uint8).tobytes()
    whole = (samples * (2 ** (bits - 1) - 1)).astype("<i8")
    return whole[:, None].view(np.uint8)[:, : bits // 8].tobytes()


MONO, STEREO = tone(1, 16), tone(2, 16)
PCM, DATA = form(1, 1, 16), chunk(b"data", MONO)
INFO = chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"Lavf60.16.100\0") + chunk(b"ICMT", b"odd"))
ADTL = chunk(b"LIST", b"adtl" + chunk(b"labl", struct.pack("<I", 1) + b"start\0"))
CUE = chunk(b"cue ", struct.pack("<IIIIIII", 1, 1, 0, int.from_bytes(b"data", "little"), 0, 0, 0))
BEXT = chunk(b"bext", b"call".ljust(256, b"\0") + bytes(346) + b"A=PCM,F=8000,W=16,M=mono\r\n")
IXML = chunk(b"iXML", b"<BWFXML><PROJECT>x</PROJECT></BWFXML>")
SMPL = chunk(b"smpl", bytes(36))
PEAK = chunk(b"PEAK", struct.pack("<IIfI", 1, 0, 0.5, 8))
ID3 = chunk(b"id3 ", b"ID3\x04\0\0\0\0\0\0")
JUNK = chunk(b"JUNK", bytes(28))
FLLR = chunk(b"FLLR", bytes(4044))  # Apple's, so that the audio starts at 4096
FACT = chunk(b"fact", struct.pack("<I", FRAMES))
FIRST64 = chunk(b"ds64", struct.pack("<QQQI", 4 + 36 + 24 + 8 + len(MONO), len(MONO), FRAMES, 0))
IN64 = chunk(b"data", MONO, size=0xFFFFFFFF)
FLOATS = chunk(b"data", tone(1, 32, floating=True))
GSM = bytes(65) * 10
ADPCM = bytes(256) * 4

GOOD: dict[str, tuple[bytes, Layout, float | None]] = {
    "plain": (riff(PCM, DATA), "mono", FRAMES / RATE),
    "stereo": (riff(form(1, 2, 16), chunk(b"data", STEREO)), "stereo", FRAMES / RATE),
    "8 bit, odd": (riff(form(1, 1, 8), chunk(b"data", tone(1, 8))), "mono", FRAMES / RATE),
    "8 bit, odd, without pad": (riff(form(1, 1, 8), chunk(b"data", tone(1, 8), pad=False)), "mono", FRAMES / RATE),
    "8 bit, pad counted, not written": (
        riff(form(1, 1, 8), chunk(b"data", tone(1, 8), pad=False), size=4 + 24 + 8 + FRAMES + 1), "mono", FRAMES / RATE,
    ),
    "24 bit": (riff(form(1, 1, 24), chunk(b"data", tone(1, 24))), "mono", FRAMES / RATE),
    "32 bit": (riff(form(1, 2, 32), chunk(b"data", tone(2, 32))), "stereo", FRAMES / RATE),
    "64 bit": (riff(form(1, 1, 64), chunk(b"data", tone(1, 64))), "mono", FRAMES / RATE),
    "12 bits in 16": (riff(form(1, 1, 12, align=2), DATA), "mono", FRAMES / RATE),
    "20 bits in 24": (riff(extensible(1, 1, 24, 20), chunk(b"data", tone(1, 24))), "mono", FRAMES / RATE),
    "float 32": (riff(form(3, 1, 32), chunk(b"data", tone(1, 32, floating=True))), "mono", FRAMES / RATE),
    "float 64, with fact": (
        riff(form(3, 2, 64, extra=b"\0\0"), FACT, chunk(b"data", tone(2, 64, floating=True))), "stereo", FRAMES / RATE,
    ),
    "u-law": (riff(form(7, 1, 8, extra=b"\0\0"), FACT, chunk(b"data", tone(1, 8))), "mono", FRAMES / RATE),
    "u-law, 16-byte fmt": (riff(form(7, 2, 8), chunk(b"data", tone(2, 8))), "stereo", FRAMES / RATE),
    "A-law": (riff(form(6, 1, 8, extra=b"\0\0"), FACT, chunk(b"data", tone(1, 8))), "mono", FRAMES / RATE),
    "GSM 6.10": (
        riff(
            chunk(b"fmt ", struct.pack("<HHIIHHHH", 0x31, 1, RATE, 1625, 65, 0, 2, 320)),
            chunk(b"fact", struct.pack("<I", 3200)),
            chunk(b"data", GSM),
        ), "mono", 3200 / RATE,
    ),
    "IMA ADPCM": (
        riff(
            chunk(b"fmt ", struct.pack("<HHIIHHHH", 0x11, 1, RATE, 4055, 256, 4, 2, 505)),
            chunk(b"fact", struct.pack("<I", 2020)),
            chunk(b"data", ADPCM),
        ), "mono", 2020 / RATE,
    ),
    "MS ADPCM": (
        riff(
            chunk(b"fmt ", struct.pack("<HHIIHHHHH", 2, 1, RATE, 4096, 256, 4, 4, 500, 0) + bytes(0)),
            chunk(b"data", ADPCM),
        ), "mono", 1024 / 4096,
    ),
    "G.729": (
        riff(chunk(b"fmt ", struct.pack("<HHIIHHH", 0x0083, 1, RATE, 1000, 10, 0, 0)), chunk(b"data", bytes(1000))),
        "mono", 1.0,
    ),
    "MP3 in a WAV": (
        riff(
            chunk(b"fmt ", struct.pack("<HHIIHHH", 0x55, 1, RATE, 1000, 1, 0, 12) + bytes(12)),
            chunk(b"data", bytes(1000)),
        ), "mono", 1.0,
    ),
    "extensible PCM": (riff(extensible(1, 2, 16), chunk(b"data", STEREO)), "stereo", FRAMES / RATE),
    "extensible float": (riff(extensible(3, 1, 32), FACT, FLOATS), "mono", FRAMES / RATE),
    "fmt of 18": (riff(form(1, 1, 16, extra=b"\0\0"), DATA), "mono", FRAMES / RATE),
    "fmt of 40 that is not extensible": (riff(form(1, 1, 16, extra=bytes(24)), DATA), "mono", FRAMES / RATE),
    "fmt with a wrong byte rate": (
        riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 0, 2, 16)), DATA), "mono", FRAMES / RATE,
    ),
    "fmt after junk": (riff(JUNK, BEXT, PCM, DATA), "mono", FRAMES / RATE),
    "chunks before": (riff(BEXT, PCM, INFO, CUE, PEAK, FACT, DATA), "mono", FRAMES / RATE),
    "chunks behind": (riff(PCM, DATA, INFO, ADTL, CUE, SMPL, ID3, IXML), "mono", FRAMES / RATE),
    "filler to 4096": (riff(PCM, FLLR, DATA), "mono", FRAMES / RATE),
    "chunk of no length": (riff(PCM, chunk(b"LIST", b""), DATA), "mono", FRAMES / RATE),
    "odd chunk before": (riff(chunk(b"note", b"odd"), PCM, chunk(b"note", b"odd"), DATA), "mono", FRAMES / RATE),
    "name of no letters": (riff(PCM, chunk(b"\0\1\2\xff", b"xx"), DATA), "mono", FRAMES / RATE),
    "data behind, twice": (riff(PCM, DATA, chunk(b"data", b"again!")), "mono", FRAMES / RATE),
    "bytes behind the RIFF chunk": (riff(PCM, DATA) + b"TAG" + bytes(125), "mono", FRAMES / RATE),
    "frame cut by the writer": (riff(form(1, 2, 16), chunk(b"data", STEREO[:-2])), "stereo", (FRAMES - 0.5) / RATE),
    "one frame": (riff(PCM, chunk(b"data", MONO[:2])), "mono", 1 / RATE),
    "48 kHz": (riff(form(1, 1, 16, rate=48_000), DATA), "mono", FRAMES / 48_000),
    "streamed, both unknown": (
        riff(PCM, chunk(b"data", MONO, size=0xFFFFFFFF), size=0xFFFFFFFF), "mono", FRAMES / RATE,
    ),
    "streamed, both nothing": (riff(PCM, chunk(b"data", MONO, size=0), size=0), "mono", FRAMES / RATE),
    "streamed by sox": (
        riff(PCM, chunk(b"data", MONO, size=0x7FFFF000), size=0x7FFFF024), "mono", FRAMES / RATE,
    ),
    "streamed by ffmpeg, with LIST": (
        riff(PCM, INFO, chunk(b"data", MONO, size=0xFFFFFFFF), size=0xFFFFFFFF), "mono", FRAMES / RATE,
    ),
    "RF64": (
        riff(FIRST64, PCM, IN64, magic=b"RF64", size=0xFFFFFFFF), "mono", FRAMES / RATE,
    ),
    "RF64 with its data size twice": (riff(FIRST64, PCM, DATA, magic=b"RF64", size=0xFFFFFFFF), "mono", FRAMES / RATE),
    "BW64": (
        riff(FIRST64, PCM, IN64, magic=b"BW64", size=0xFFFFFFFF), "mono", FRAMES / RATE,
    ),
}  # fmt: skip
PLAIN = GOOD["plain"][0]

BROKEN: dict[str, tuple[bytes, Layout, set[str]]] = {
    "empty": (b"", "mono", {"empty_body"}),
    "four bytes": (b"RIFF", "mono", {"cut_off"}),
    "header alone": (PLAIN[:44], "mono", {"header_only"}),
    "header of no audio": (riff(PCM, chunk(b"data", b"")), "mono", {"header_only"}),
    "no audio, chunks behind": (riff(PCM, chunk(b"data", b""), INFO), "mono", {"header_only"}),
    "header streamed, no audio": (
        riff(PCM, chunk(b"data", b"", size=0xFFFFFFFF), size=0xFFFFFFFF),
        "mono",
        {"header_only"},
    ),
    "fmt missing": (riff(DATA), "mono", {"no_fmt"}),
    "fmt behind data": (riff(DATA, PCM), "mono", {"no_fmt"}),
    "fmt of 14": (riff(chunk(b"fmt ", bytes(14)), DATA), "mono", {"bad_fmt"}),
    "no channel": (riff(form(1, 0, 16, align=2), DATA), "mono", {"bad_fmt"}),
    "no rate": (riff(form(1, 1, 16, rate=0), DATA), "mono", {"bad_fmt"}),
    "extensible cut": (riff(form(0xFFFE, 1, 16, extra=b"\x16\0" + bytes(4)), DATA), "mono", {"bad_fmt"}),
    "data missing": (riff(PCM, INFO), "mono", {"no_data"}),
    "chunk size above the file": (riff(PCM, chunk(b"LIST", b"INFO", size=1 << 30), DATA), "mono", {"cut_off"}),
    "AIFF": (b"FORM" + struct.pack(">I", 100) + b"AIFF" + bytes(92), "mono", {"not_riff"}),
    "AVI": (b"RIFF" + struct.pack("<I", 100) + b"AVI " + bytes(96), "mono", {"not_wave"}),
    "Ogg": (b"OggS" + bytes(100), "mono", {"not_riff"}),
    "FLAC": (b"fLaC" + bytes(100), "mono", {"not_riff"}),
    "MP3": (b"\xff\xfb\x90\x00" + bytes(400), "mono", {"not_riff"}),
    "zeros": (bytes(5000), "mono", {"not_riff"}),
    "a page": (b"<!doctype html><title>Log in</title>", "mono", {"not_riff"}),
}

# Whole or not, their sizes promise more than there is: what HTTP says of the transfer decides.
DISAGREEING: dict[str, tuple[bytes, str]] = {
    "last byte missing": (PLAIN[:-1], "cut_off"),
    "half missing": (PLAIN[: len(PLAIN) // 2], "cut_off"),
    "chunk behind cut": (riff(PCM, DATA, INFO)[:-10], "nothing"),
    "data size above the file": (riff(PCM, chunk(b"data", MONO, size=len(MONO) + 2)), "cut_off"),
    "RIFF size above the file": (riff(PCM, DATA, size=len(PLAIN)), "nothing"),
    "RF64 cut": (GOOD["RF64"][0][:-2], "cut_off"),
    "streamed by arecord": (riff(PCM, chunk(b"data", MONO, size=0x80000000), size=0x80000024), "nothing"),
}


def inspect(body: bytes) -> WavInfo:
    return inspect_wav(io.BytesIO(body), len(body))


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_is_taken_with_its_length(name: str) -> None:
    body, layout, seconds = GOOD[name]
    info = inspect(body)
    assert info.duration_s == pytest.approx(seconds)
    assert info.channels == (1 if layout == "mono" else 2)
    assert not info.disagrees
    assert info.proof == ("nothing" if "streamed" in name else "whole")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_by_its_name(name: str) -> None:
    body, _, reasons = BROKEN[name]
    with pytest.raises(NotARecording) as refused:
        inspect(body)
    assert refused.value.reason in reasons


@pytest.mark.parametrize("name", DISAGREEING)
def test_a_header_that_promises_more_than_there_is_is_noticed(name: str) -> None:
    body, proof = DISAGREEING[name]
    info = inspect(body)
    assert (info.disagrees, info.proof) == (True, proof)


def test_any_number_of_channels_is_read() -> None:
    assert inspect(riff(form(1, 6, 16), chunk(b"data", MONO * 6))).channels == 6


@pytest.mark.parametrize("name", [name for name in GOOD if "streamed" not in name and "behind the RIFF" not in name])
def test_a_good_file_without_its_last_bytes_does_not_pass_for_whole(name: str) -> None:
    body, _, _ = GOOD[name]
    for missing in (2, 3, 16, len(body) // 3):
        with suppress(NotARecording):
            info = inspect(body[:-missing])
            assert info.disagrees
            assert info.proof != "whole"


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_what_pythons_wave_writes_is_taken(channels: int, width: int) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((channels, width, RATE, 0, "NONE", ""))
        sound.writeframes(tone(channels, 8 * width))
    info = inspect(file.getvalue())
    assert (info.data_bytes, info.bits_per_sample) == (FRAMES * channels * width, 8 * width)


@pytest.mark.skipif(which("sox") is None, reason="sox is not installed (`apt install sox`)")
@pytest.mark.parametrize(
    "encoding", ["signed", "unsigned", "floating-point", "mu-law", "a-law", "ima-adpcm", "ms-adpcm", "gsm"]
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_sox_writes_is_taken(encoding: str, streamed: bool, tmp_path: Path) -> None:
    bits = {"unsigned": ["-b", "8"], "signed": ["-b", "16"], "floating-point": ["-b", "32"]}.get(encoding, [])
    kind = {"signed": "signed-integer", "unsigned": "unsigned-integer", "gsm": "gsm-full-rate"}.get(encoding, encoding)
    target = ["-"] if streamed else [str(tmp_path / "x.wav")]
    command = [
        "sox",
        "-n",
        "-r",
        "8000",
        "-c",
        "1",
        "-e",
        kind,
        *bits,
        "-t",
        "wav",
        *target,
        "synth",
        "1",
        "sine",
        "440",
    ]
    made = subprocess.run(command, capture_output=True, check=True, timeout=60)
    body = made.stdout if streamed else (tmp_path / "x.wav").read_bytes()
    info = inspect(body)
    assert info.proof == ("nothing" if streamed else "whole")
    assert info.duration_s is None or info.duration_s == pytest.approx(1, abs=0.1)

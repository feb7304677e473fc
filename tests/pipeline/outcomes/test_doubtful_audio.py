"""A body that may be audio is never lost: archived with a warning, or kept in quarantine."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import wave
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from shutil import which

import pytest

from pipelines.ledger.states import Status
from pipelines.steps.check.audio import audio_is_true
from pipelines.steps.check.result import Level
from tests.pipeline.outcomes.conftest import DAY, MONTH, PAGE, Archiver, Source, after, answer, wav

LYING = {
    "riff_44.WAV": wav(riff=44 + 8000),
    "riff_far.WAV": wav(riff=1_000_000),
    "data_16.WAV": wav(riff=36 + 8016, data=8016),
    "arecord.WAV": wav(riff=0x80000024, data=0x80000000),
    "mixed.WAV": wav(riff=0x7FFFFFFF, data=0xFFFFFFFF),
}


def test_a_whole_transfer_whose_header_lies_is_archived_when_it_comes_twice(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    source.always({name: answer(body) for name, body in LYING.items()})
    archiver = make_archiver()
    archiver.register(age=timedelta(hours=1))
    archiver.run()
    assert {(state.status, state.reason) for state in archiver.states.values()} == {
        (Status.pending, "header_disagrees")
    }
    archiver.run()
    for name, body in LYING.items():
        assert archiver.states[name].status is Status.archived
        assert archiver.states[name].warnings == ("header_disagrees",)
        assert archiver.stored(name) == body
    found = audio_is_true(archiver.world.services().ledger, DAY)
    assert found.counts["header_disagrees"] == len(LYING)
    assert found.level.value != "ok"


def test_a_transfer_whose_header_lies_and_whose_bytes_change_is_not_believed(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    source.answers["grows.WAV"] = lambda before: answer(wav(1 + before, riff=36 + 160_000, data=160_000))
    archiver = make_archiver()
    archiver.register(age=timedelta(hours=1))
    for _ in range(4):
        archiver.run()
    assert archiver.states["grows.WAV"].status is Status.pending


STREAMED = wav(2, riff=0xFFFFFFFF, data=0xFFFFFFFF)


def test_half_a_recording_without_length_is_never_archived_as_whole(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    half, whole = STREAMED[: len(STREAMED) // 2], STREAMED
    source.answers["a.WAV"] = after([answer(half, framed=False)] * 2, answer(whole))
    archiver = make_archiver()
    archiver.register(age=MONTH)
    for _ in range(2):
        archiver.run(hours=13)
        assert (archiver.states["a.WAV"].status, archiver.states["a.WAV"].reason) == (Status.pending, "length_unproven")
    archiver.run()
    assert (archiver.states["a.WAV"].status, archiver.states["a.WAV"].warnings) == (Status.archived, ())
    assert archiver.stored("a.WAV") == whole


def test_what_never_proves_its_length_is_kept_at_last_with_a_warning_that_a_check_counts(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    shorter = answer(STREAMED[:-5000], framed=False)
    source.answers["same.WAV"] = lambda _: answer(STREAMED, framed=False)
    source.answers["cut.WAV"] = after([answer(STREAMED, framed=False), *[shorter] * 2], answer(STREAMED, framed=False))
    archiver = make_archiver()
    archiver.register(age=MONTH)
    for _ in range(3):
        assert {state.status for state in archiver.states.values()} == {Status.pending}
        archiver.run(hours=13)
    assert archiver.states["same.WAV"].warnings == ("length_unproven",)
    assert archiver.states["cut.WAV"].status is Status.archived, "the same bytes twice"
    found = audio_is_true(archiver.world.services().ledger, DAY)
    assert found.counts["length_unproven"] == 2
    assert "length" in found.sentence


def test_a_shorter_body_than_one_seen_before_is_not_kept_at_last(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    source.answers["a.WAV"] = lambda before: answer(STREAMED[: -1000 * before or None], framed=False)
    archiver = make_archiver()
    archiver.register(age=MONTH)
    for _ in range(4):
        archiver.run(hours=13)
    assert (archiver.states["a.WAV"].status, archiver.states["a.WAV"].reason) == (Status.pending, "length_unproven")


def sox(*form: str) -> bytes:
    command = ["sox", "-n", "-r", "8000", *form, "-t", "wav", "-", "synth", "1", "sine", "440"]
    streamed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    size = len(streamed)
    at = streamed.index(b"data") + 4
    sizes = struct.pack("<I", size - 8), struct.pack("<I", size - at - 4)
    return streamed[:4] + sizes[0] + streamed[8:at] + sizes[1] + streamed[at + 4 :]


def by_wave(width: int, channels: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((channels, width, 8000, 0, "NONE", ""))
        sound.writeframes(b"\1\2\3\4" * 8000 * channels)
    return file.getvalue()


@pytest.mark.skipif(which("sox") is None, reason="sox is not installed (`apt install sox`)")
def test_odd_audio_is_kept_and_says_what_is_odd_about_it(
    source: Source, make_archiver: Callable[..., Archiver], tmp_path: Path
) -> None:
    codec, channels, telephone = "codec_unexpected", "channels_unexpected", "codec_g711"
    big_endian = tmp_path / "x.wav"
    subprocess.run(
        ["sox", "-n", "-r", "8000", "-c", "1", "-b", "16", "-B", str(big_endian), "synth", "1", "sine", "440"],
        check=True,
        timeout=60,
    )
    made: dict[str, tuple[bytes, tuple[str, ...]]] = {
        "plain.WAV": (sox("-c", "1", "-b", "16"), ()),
        "two.WAV": (sox("-c", "2", "-b", "16"), (channels,)),
        "six.WAV": (sox("-c", "6", "-b", "16"), (channels,)),
        "a_law.WAV": (sox("-c", "1", "-e", "a-law"), (telephone,)),
        "mu_law.WAV": (sox("-c", "1", "-e", "mu-law"), (telephone,)),
        "ima.WAV": (sox("-c", "1", "-e", "ima-adpcm"), (codec,)),
        "ms.WAV": (sox("-c", "1", "-e", "ms-adpcm"), (codec,)),
        "gsm.WAV": (sox("-c", "1", "-e", "gsm-full-rate"), (codec,)),
        "float.WAV": (sox("-c", "1", "-e", "floating-point", "-b", "32"), (codec,)),
        "rifx.WAV": (big_endian.read_bytes(), ("big_endian",)),
        **{f"wave{width}.WAV": (by_wave(width, 1), () if width == 2 else (codec,)) for width in (1, 2, 3, 4)},
        "wave_stereo.WAV": (by_wave(2, 2), (channels,)),
    }
    assert big_endian.read_bytes().startswith(b"RIFX")
    source.always({name: answer(body) for name, (body, _) in made.items()})
    archiver = make_archiver()
    archiver.register(age=timedelta(hours=1))
    archiver.run()
    assert {name: state.warnings for name, state in archiver.states.items()} == {
        name: warnings for name, (_, warnings) in made.items()
    }
    for name, (body, _) in made.items():
        assert archiver.stored(name) == body
    counts = audio_is_true(archiver.world.services().ledger, DAY).counts
    assert (counts[channels], counts[codec], counts["big_endian"]) == (3, 7, 1)


@pytest.mark.skipif(which("sox") is None, reason="sox is not installed (`apt install sox`)")
@pytest.mark.parametrize("coding", ["a-law", "mu-law"])
def test_the_usual_codings_of_telephone_networks_are_flagged_and_no_alarm(
    source: Source, make_archiver: Callable[..., Archiver], coding: str
) -> None:
    source.always({"one.WAV": answer(sox("-c", "1", "-e", coding))})
    archiver = make_archiver()
    archiver.register(age=timedelta(hours=1))
    archiver.run()
    assert archiver.states["one.WAV"].warnings == ("codec_g711",)
    assert audio_is_true(archiver.world.services().ledger, DAY).level is Level.ok


def test_what_is_refused_for_good_and_may_be_audio_is_kept_in_quarantine(
    source: Source, make_archiver: Callable[..., Archiver]
) -> None:
    raw = bytes(range(256)) * 8000
    mp3 = b"ID3\x04" + bytes(300_000)
    bodies = {
        "raw.WAV": answer(raw),
        "short.WAV": answer(wav()[:4000], framed=False),
        "page.WAV": PAGE,
        "text.WAV": answer(b"ein Fehler ist aufgetreten"),
        "empty.WAV": answer(b""),
        "mp3.WAV": answer(mp3, kind="audio/mpeg"),
    }
    source.always(bodies)
    archiver = make_archiver(ARCHIVE_QUARANTINE_MAX_MB="1")
    archiver.register(age=MONTH)
    for _ in range(2):
        archiver.run(hours=13)
        assert archiver.world.objects("quarantine/") == {}
    archiver.run()
    states = archiver.states
    assert {state.status for state in states.values()} == {Status.rejected}
    audio = {"raw.WAV": raw, "short.WAV": wav()[:4000], "mp3.WAV": mp3}
    kept = {states[name].quarantine_key: body for name, body in audio.items()}
    assert archiver.world.objects("quarantine/") == {
        key: hashlib.sha256(body[: 1 << 20]).hexdigest() for key, body in kept.items()
    }
    assert all(str(key).startswith(f"quarantine/date={DAY}/account_id=15300002/layout=mono/") for key in kept)
    assert {states[name].quarantine_key for name in ("page.WAV", "text.WAV", "empty.WAV")} == {None}

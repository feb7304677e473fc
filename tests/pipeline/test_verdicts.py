"""What a source may answer that is no plain recording: nothing is final early, and no byte is lost by a rule of ours.

The source is a server of the test's own, which sends for each path exactly the bytes that the test names.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import subprocess
import threading
import wave
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageRefused
from pipelines.errors import ExpectedError
from pipelines.ledger.states import FINAL, RecordingState, Status
from pipelines.ringcx.errors import AccountUnknown
from pipelines.steps.check.audio import audio_is_true
from pipelines.steps.check.result import Level
from pipelines.steps.fetch.fetcher import BREAK_AFTER
from pipelines.steps.fetch.outcomes import Failed, Fault, RetryRules, age, next_state
from tests.pipeline.conftest import World
from tests.pipeline.test_steps import fetched, some_state
from tests.servers.scripted_http import Request, ScriptedServer

DAY = date(2026, 11, 19)
NOW = datetime.now(UTC)
RULES = RetryRules((2, 5, 15, 60), timedelta(days=7))
Answer = Callable[[int], bytes]
"""How often it was asked before -> the whole answer."""


def answer(body: bytes, *, status: str = "200 OK", kind: str = "audio/wav", framed: bool = True) -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if framed else ""
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{length}Connection: close\r\n\r\n".encode() + body


def wav(seconds: float = 0.5, *, channels: int = 1, riff: int | None = None, data: int | None = None) -> bytes:
    audio = b"\x10\x20" * int(8000 * seconds * channels)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, 8000, 16000 * channels, 2 * channels, 16)
    sizes = (36 + len(audio) if riff is None else riff, len(audio) if data is None else data)
    return b"RIFF" + struct.pack("<I", sizes[0]) + b"WAVE" + form + b"data" + struct.pack("<I", sizes[1]) + audio


PAGE = answer(b"<html>Come back later</html>", kind="text/html")
NOT_FOUND = answer(b"", status="404 Not Found")
FIREWALL = answer(b"<html>no</html>", status="403 Forbidden", kind="text/html")
REFUSED = answer(b"no", status="401 Unauthorized", kind="text/plain")


class Source(ScriptedServer):
    """Answers `/<name>` by `answers[name]`."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.answers: dict[str, Answer] = {}
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def _answer(self, request: Request) -> bytes:
        name = request.path.rpartition("=")[2]
        with self._lock:
            before, self.asked[name] = self.asked[name], self.asked[name] + 1
        return self.answers[name](before)

    def always(self, answers: dict[str, bytes]) -> None:
        self.answers = {name: constantly(response) for name, response in answers.items()}


def constantly(response: bytes) -> Answer:
    return lambda _: response


@pytest.fixture
def source() -> Iterator[Source]:
    with Source() as source:
        yield source


@pytest.fixture
def archiver(source: Source, world: Callable[..., World]) -> Callable[..., Archiver]:
    def make(**variables: str) -> Archiver:
        it = world(RINGCX_MEDIA_HOSTS=source.host, **variables)
        return Archiver(it, source)

    return make


class Archiver:
    """Runs over the recordings that the source has answers for; each run asks for all that are pending."""

    def __init__(self, it: World, source: Source) -> None:
        self.it = it
        self.source = source

    def register(self, *, age: timedelta, layout: str = "mono") -> None:
        now = datetime.now(UTC)  # not NOW: the file's tests may take longer than a recording is young
        states = [
            some_state(
                f"15300002/{name}",
                DAY,
                layout=layout,
                link=f"http://{self.source.host}/r?file={name}",
                started_at=now - age,
                first_seen_at=now,
                written_at=now,
                next_attempt_at=now,
            )
            for name in self.source.answers
        ]
        self.it.services().ledger.append_states(states)

    def run(self, *, hours: float = 0.0) -> None:
        """A run, and then time passes."""
        try:
            fetched(self.it.services(), *self.states.values())
        finally:
            self.it.passed += timedelta(hours=hours)

    @property
    def states(self) -> dict[str, RecordingState]:
        return {key.rpartition("/")[2]: state for key, state in self.it.states(DAY).items()}

    def stored(self, name: str) -> bytes:
        return bytes(self.it.s3.get_object(Bucket=self.it.bucket, Key=self.states[name].key)["Body"].read())


def after(bad: Sequence[bytes], good: bytes) -> Answer:
    return lambda before: bad[before] if before < len(bad) else good


MONTH = timedelta(days=30)
BAD = {
    "missing.WAV": NOT_FOUND,
    "encoding.WAV": answer(b"", status="202 Accepted"),
    "empty.WAV": answer(b""),
    "page.WAV": PAGE,
    "json.WAV": answer(b'{"error": 1}', kind="application/json"),
    "header.WAV": answer(wav(0)),
    "short.WAV": answer(wav()[:4000], framed=False),
}


def test_recordings_that_are_bad_twice_and_then_good_are_all_archived_however_old_they_are(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    source.answers = {name: after([bad] * 2, answer(wav())) for name, bad in BAD.items()}
    ours = archiver()
    ours.register(age=MONTH)
    for _ in range(2):
        ours.run(hours=13)
        assert {state.status for state in ours.states.values()} == {Status.pending}
    ours.run()
    assert {state.status for state in ours.states.values()} == {Status.archived}


def test_no_number_of_attempts_within_a_day_is_enough_for_a_final_state(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    source.always(BAD)
    ours = archiver()
    ours.register(age=MONTH)
    for _ in range(6):
        ours.run(hours=4)
    assert {state.status for state in ours.states.values()} == {Status.pending}
    ours.run()
    assert {state.status for state in ours.states.values()} == {Status.missing, Status.rejected}


def test_two_attempts_are_not_enough_for_a_final_state_however_far_apart(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    source.always(BAD)
    ours = archiver()
    ours.register(age=MONTH)
    ours.run(hours=240)
    ours.run()
    assert {state.status for state in ours.states.values()} == {Status.pending}


def test_a_day_is_counted_from_the_first_attempt_and_not_from_when_a_link_was_seen(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    source.always(BAD)
    ours = archiver()
    ours.register(age=MONTH)
    ours.it.passed = timedelta(days=5)
    for _ in range(3):
        ours.run(hours=1)
    assert {state.status for state in ours.states.values()} == {Status.pending}


@pytest.mark.parametrize("refusal", [FIREWALL, REFUSED, answer(b"no", status="403 Forbidden", kind="text/plain")])
def test_refusals_after_recordings_that_were_given_stop_the_run_and_deny_nothing(
    source: Source, archiver: Callable[..., Archiver], refusal: bytes
) -> None:
    good = {f"a{number:03d}.WAV": answer(wav()) for number in range(30)}
    source.always(good | {f"b{number:03d}.WAV": refusal for number in range(170)})
    ours = archiver()
    ours.register(age=timedelta(hours=5))
    for _ in range(3):
        with pytest.raises(ExpectedError, match=f"{BREAK_AFTER} recordings in a row"):
            ours.run(hours=13)
    states = ours.states
    assert {name for name, state in states.items() if state.status is Status.archived} == good.keys()
    assert not {state.status for state in states.values()} & FINAL
    assert sum(source.asked.values()) < 30 + 3 * (BREAK_AFTER + 16)
    source.always({name: answer(wav()) for name in states})
    ours.run()
    assert {state.status for state in ours.states.values()} == {Status.archived}


def test_recordings_that_are_refused_in_two_ways_are_named_with_both_remedies(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    source.always({"a.WAV": FIREWALL, "b.WAV": REFUSED})
    ours = archiver()
    ours.register(age=timedelta(hours=5))
    with pytest.raises(ExpectedError, match=r"lower RINGCX_LIMIT_MEDIA.*; check RINGCX_MEDIA_USERNAME"):
        ours.run()


@pytest.mark.parametrize(("age", "end"), [(timedelta(days=30), Status.pending), (timedelta(days=95), Status.denied)])
def test_more_lasting_refusals_than_a_run_bears_end_denied_once_the_source_has_purged_the_recordings(
    source: Source, archiver: Callable[..., Archiver], age: timedelta, end: Status
) -> None:
    good = {f"a{number:03d}.WAV": answer(wav()) for number in range(5)}
    refusal = answer(b"no", status="403 Forbidden", kind="text/plain")
    source.always(good | {f"b{number:03d}.WAV": refusal for number in range(2 * BREAK_AFTER)})
    ours = archiver(ARCHIVE_CONCURRENCY="1")
    ours.register(age=age)
    for _ in range(4):  # the first and the second attempt at all of them
        with pytest.raises(ExpectedError, match=f"{BREAK_AFTER} recordings in a row"):
            ours.run(hours=13)
        assert not {state.status for state in ours.states.values()} & {Status.denied}
    with contextlib.suppress(ExpectedError):
        ours.run()
    assert {name for name, state in ours.states.items() if state.status is Status.archived} == good.keys()
    assert {state.status for state in ours.states.values()} == {Status.archived, end}


def test_a_bucket_that_takes_nothing_stops_the_run_though_absent_recordings_come_between(
    source: Source, archiver: Callable[..., Archiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    source.always({f"{n:03d}.WAV": NOT_FOUND if n % 4 else answer(wav()) for n in range(8 * BREAK_AFTER)})
    ours = archiver()
    source.answers["000.WAV"] = lambda _: answer(wav())
    ours.register(age=MONTH)
    fetched(ours.it.services(), ours.states["000.WAV"])

    def refuses(*_: object, **__: object) -> None:
        raise StorageRefused("S3 took nothing")

    monkeypatch.setattr(Bucket, "put_new", refuses)
    with pytest.raises(StorageRefused, match="S3 took nothing"):
        ours.run()
    assert sum(source.asked.values()) < 4 * (BREAK_AFTER + 16)


def test_a_recording_that_is_refused_while_others_are_given_ends_denied(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    source.always({"refused.WAV": REFUSED} | {f"x{number}.WAV": NOT_FOUND for number in range(3)})
    ours = archiver(ARCHIVE_CONCURRENCY="1")
    ours.register(age=timedelta(hours=5))
    for number in range(3):
        assert ours.states["refused.WAV"].status is Status.pending
        source.answers[f"x{number}.WAV"] = lambda _: answer(wav())
        ours.run(hours=13)
    assert ours.states["refused.WAV"].status is Status.denied


def test_as_many_404s_as_the_run_bears_stop_it_with_the_account_and_nothing_is_final(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    source.always({f"{number:03d}.WAV": NOT_FOUND for number in range(200)})
    ours = archiver()
    ours.register(age=timedelta(days=9))
    for _ in range(3):
        with pytest.raises(ExpectedError, match="RINGCX_RC_ACCOUNT_ID"):
            ours.run(hours=13)
    assert {state.status for state in ours.states.values()} == {Status.pending}


def test_recordings_that_are_minutes_old_or_still_encoded_may_all_be_absent(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    source.always({f"{number:03d}.WAV": NOT_FOUND for number in range(BREAK_AFTER + 5)})
    ours = archiver()
    ours.register(age=timedelta(minutes=20))
    ours.run()
    assert {(state.status, state.attempts) for state in ours.states.values()} == {(Status.pending, 1)}
    source.always({name: answer(b"", status="202 Accepted") for name in ours.states})
    ours.it.passed += timedelta(hours=5)
    ours.run()
    assert {(state.reason, state.attempts) for state in ours.states.values()} == {("still_encoding", 2)}


# --- when to ask again ---


def tried(attempts: int) -> RecordingState:
    """A recording first seen at NOW, whose next attempt is number `attempts`."""
    return some_state("15300002/a.WAV", DAY, started_at=NOW, first_seen_at=NOW, attempts=attempts - 1)


@pytest.mark.parametrize(("attempts", "wait"), [(1, 2), (2, 5), (3, 15), (4, 60), (5, 60), (20, 60)])
def test_waits_climb_the_ladder_and_stay_on_its_last_step_for_a_day(attempts: int, wait: int) -> None:
    assert RULES.next_attempt(tried(attempts), NOW) == NOW + timedelta(minutes=wait)


def test_after_a_day_a_recording_is_asked_for_daily() -> None:
    now = NOW + timedelta(days=1)
    assert RULES.next_attempt(tried(5), now) == now + timedelta(days=1)
    assert RULES.next_attempt(tried(4), now) == now + timedelta(minutes=60)


def test_a_wait_of_zero_means_due_at_once() -> None:
    at_once = RetryRules((0,), timedelta(days=7))
    assert at_once.next_attempt(tried(1), NOW) == at_once.next_attempt(tried(9), NOW) == NOW


@given(
    waits=st.lists(st.floats(0, 10_000), min_size=1, max_size=6),
    attempts=st.integers(1, 50),
    age=st.timedeltas(timedelta(0), timedelta(days=40)),
)
def test_the_next_attempt_is_never_in_the_past_nor_further_away_than_the_rules_say(
    waits: list[float], attempts: int, age: timedelta
) -> None:
    now = NOW + age
    wait = RetryRules(waits, timedelta(7)).next_attempt(tried(attempts), now) - now
    assert timedelta(0) <= wait <= max(timedelta(minutes=max(waits)), timedelta(days=1))


def test_a_recording_is_given_up_by_the_age_of_its_start() -> None:
    state = some_state("15300002/a.WAV", DAY, started_at=NOW, first_seen_at=NOW + timedelta(hours=1))
    assert age(state, NOW + timedelta(days=7)) <= RULES.give_up
    assert age(state, NOW + timedelta(days=7, microseconds=1)) > RULES.give_up


def test_without_a_start_the_end_of_its_day_counts() -> None:
    state = some_state("15300002/a.WAV", date(2026, 11, 18), first_seen_at=datetime(2026, 11, 30, tzinfo=UTC))
    assert age(state, datetime(2026, 11, 26, tzinfo=UTC)) <= RULES.give_up
    assert age(state, datetime(2026, 11, 26, 0, 0, 1, tzinfo=UTC)) > RULES.give_up


def test_a_start_in_the_far_future_does_not_keep_a_recording_pending_for_ever() -> None:
    state = some_state("15300002/a.WAV", DAY, started_at=NOW + timedelta(days=36_000), first_seen_at=NOW)
    assert age(state, NOW + timedelta(days=8)) > RULES.give_up


def test_a_day_of_outage_is_no_answer_so_the_first_404_after_it_is_not_the_last() -> None:
    rules = RetryRules(minutes=[5], give_up=timedelta(days=7))
    state = some_state(
        "15300002/a.WAV", DAY, started_at=NOW - MONTH, first_seen_at=NOW, written_at=NOW, next_attempt_at=NOW
    )
    down, absent = Fault("unavailable", "source_unavailable"), Fault("not_there", "not_found")
    for day, fault in enumerate((down, down, down, absent)):
        now = NOW + timedelta(days=day)
        state = next_state(Failed(state, now, fault), believed=True, rules=rules, run_id="run-1")
        assert state.status is Status.pending
    later = NOW + timedelta(days=4)
    last = next_state(Failed(state, later, absent), believed=True, rules=rules, run_id="run-1")
    assert last.status is Status.missing


def test_an_account_that_the_source_does_not_know_stops_the_run_with_its_sentence(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    body = b'{"generalMessage": "EvPlatform by rc_account_id=37439510 not found"}'
    source.always({f"{number}.WAV": answer(body, status="404 Not Found") for number in range(60)})
    ours = archiver()
    ours.register(age=timedelta(days=9))
    with pytest.raises(AccountUnknown, match="RINGCX_RC_ACCOUNT_ID"):
        ours.run()
    assert {state.status for state in ours.states.values()} == {Status.pending}


LYING = {
    "riff_44.WAV": wav(riff=44 + 8000),
    "riff_far.WAV": wav(riff=1_000_000),
    "data_16.WAV": wav(riff=36 + 8016, data=8016),
    "arecord.WAV": wav(riff=0x80000024, data=0x80000000),
    "mixed.WAV": wav(riff=0x7FFFFFFF, data=0xFFFFFFFF),
}


def test_a_whole_transfer_whose_header_lies_is_archived_when_it_comes_twice(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    source.always({name: answer(body) for name, body in LYING.items()})
    ours = archiver()
    ours.register(age=timedelta(hours=1))
    ours.run()
    assert {(state.status, state.reason) for state in ours.states.values()} == {(Status.pending, "header_disagrees")}
    ours.run()
    for name, body in LYING.items():
        assert ours.states[name].status is Status.archived
        assert ours.states[name].warnings == ("header_disagrees",)
        assert ours.stored(name) == body
    found = audio_is_true(ours.it.services().ledger, DAY)
    assert found.counts["header_disagrees"] == len(LYING)
    assert found.level.value != "ok"


def test_a_transfer_whose_header_lies_and_whose_bytes_change_is_not_believed(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    source.answers["grows.WAV"] = lambda before: answer(wav(1 + before, riff=36 + 160_000, data=160_000))
    ours = archiver()
    ours.register(age=timedelta(hours=1))
    for _ in range(4):
        ours.run()
    assert ours.states["grows.WAV"].status is Status.pending


STREAMED = wav(2, riff=0xFFFFFFFF, data=0xFFFFFFFF)


def test_half_a_recording_without_length_is_never_archived_as_whole(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    half, whole = STREAMED[: len(STREAMED) // 2], STREAMED
    source.answers["a.WAV"] = after([answer(half, framed=False)] * 2, answer(whole))
    ours = archiver()
    ours.register(age=MONTH)
    for _ in range(2):
        ours.run(hours=13)
        assert (ours.states["a.WAV"].status, ours.states["a.WAV"].reason) == (Status.pending, "length_unproven")
    ours.run()
    assert (ours.states["a.WAV"].status, ours.states["a.WAV"].warnings) == (Status.archived, ())
    assert ours.stored("a.WAV") == whole


def test_what_never_proves_its_length_is_kept_at_last_with_a_warning_that_a_check_counts(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    shorter = answer(STREAMED[:-5000], framed=False)
    source.answers["same.WAV"] = lambda _: answer(STREAMED, framed=False)
    source.answers["cut.WAV"] = after([answer(STREAMED, framed=False), *[shorter] * 2], answer(STREAMED, framed=False))
    ours = archiver()
    ours.register(age=MONTH)
    for _ in range(3):
        assert {state.status for state in ours.states.values()} == {Status.pending}
        ours.run(hours=13)
    assert ours.states["same.WAV"].warnings == ("length_unproven",)
    assert ours.states["cut.WAV"].status is Status.archived, "the same bytes twice"
    found = audio_is_true(ours.it.services().ledger, DAY)
    assert found.counts["length_unproven"] == 2
    assert "length" in found.sentence


def test_a_shorter_body_than_one_seen_before_is_not_kept_at_last(
    source: Source, archiver: Callable[..., Archiver]
) -> None:
    source.answers["a.WAV"] = lambda before: answer(STREAMED[: -1000 * before or None], framed=False)
    ours = archiver()
    ours.register(age=MONTH)
    for _ in range(4):
        ours.run(hours=13)
    assert (ours.states["a.WAV"].status, ours.states["a.WAV"].reason) == (Status.pending, "length_unproven")


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
    source: Source, archiver: Callable[..., Archiver], tmp_path: Path
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
    ours = archiver()
    ours.register(age=timedelta(hours=1))
    ours.run()
    assert {name: state.warnings for name, state in ours.states.items()} == {
        name: warnings for name, (_, warnings) in made.items()
    }
    for name, (body, _) in made.items():
        assert ours.stored(name) == body
    counts = audio_is_true(ours.it.services().ledger, DAY).counts
    assert (counts[channels], counts[codec], counts["big_endian"]) == (3, 7, 1)


@pytest.mark.skipif(which("sox") is None, reason="sox is not installed (`apt install sox`)")
@pytest.mark.parametrize("coding", ["a-law", "mu-law"])
def test_the_usual_codings_of_telephone_networks_are_flagged_and_no_alarm(
    source: Source, archiver: Callable[..., Archiver], coding: str
) -> None:
    source.always({"one.WAV": answer(sox("-c", "1", "-e", coding))})
    ours = archiver()
    ours.register(age=timedelta(hours=1))
    ours.run()
    assert ours.states["one.WAV"].warnings == ("codec_g711",)
    assert audio_is_true(ours.it.services().ledger, DAY).level is Level.ok


def test_what_is_refused_for_good_and_may_be_audio_is_kept_in_quarantine(
    source: Source, archiver: Callable[..., Archiver]
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
    ours = archiver(ARCHIVE_QUARANTINE_MAX_MB="1")
    ours.register(age=MONTH)
    for _ in range(2):
        ours.run(hours=13)
        assert ours.it.objects("quarantine/") == {}
    ours.run()
    states = ours.states
    assert {state.status for state in states.values()} == {Status.rejected}
    audio = {"raw.WAV": raw, "short.WAV": wav()[:4000], "mp3.WAV": mp3}
    kept = {states[name].quarantine_key: body for name, body in audio.items()}
    assert ours.it.objects("quarantine/") == {
        key: hashlib.sha256(body[: 1 << 20]).hexdigest() for key, body in kept.items()
    }
    assert all(str(key).startswith(f"quarantine/date={DAY}/account_id=15300002/layout=mono/") for key in kept)
    assert {states[name].quarantine_key for name in ("page.WAV", "text.WAV", "empty.WAV")} == {None}

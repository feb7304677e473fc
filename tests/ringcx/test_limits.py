"""Permits come as early as the rates allow and never earlier, for threads and processes together."""

import signal
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.ringcx.errors import Stopped
from pipelines.ringcx.limits.limiter import Rate, RateLimiter, parse_rates
from pipelines.ringcx.limits.store import LimiterBroken
from tests.ringcx.conftest import free_next_permit, order_of_permits, permits_given, wait_for_queue
from tests.servers.ports import PATIENCE_S


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def fake() -> FakeTime:
    return FakeTime()


@pytest.fixture
def limiter(where: Path | str, fake: FakeTime) -> Iterator[RateLimiter]:
    first = RateLimiter(where, clock=fake, sleep=fake.sleep, margin_s=0)
    yield first
    first.close()


def assert_within(times: list[float], rates: list[Rate]) -> None:
    """No window of any rate, half open, holds more than its limit."""
    times = sorted(times)
    for rate in rates:
        for earlier, later in zip(times, times[rate.limit :], strict=False):
            assert later - earlier >= rate.seconds - 1e-6, f"{rate} exceeded"


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("3/60,9/900", (Rate(3, 60), Rate(9, 900))),
        (" 2/60 ", (Rate(2, 60),)),
        ("120/0.5", (Rate(120, 0.5),)),
        ("none", ()),
        ("None", ()),
        ("", ()),
    ],
)
def test_rates_are_read_from_text(text: str, rates: tuple[Rate, ...]) -> None:
    assert parse_rates(text) == rates


@pytest.mark.parametrize("text", ["3", "3/", "/60", "0/60", "-1/60", "3/0", "3/inf", "3/nan", "3/60,", "a/b", "1.5/60"])
def test_a_rate_that_cannot_be_read_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="3/60"):
        parse_rates(text)


def test_permits_within_the_rate_do_not_wait_and_the_next_waits_for_the_window(
    limiter: RateLimiter, fake: FakeTime
) -> None:
    rates = parse_rates("3/60,9/900")
    start = fake.now
    granted = []
    for _ in range(12):
        limiter.acquire("metadata", "1", rates)
        granted.append(fake.now - start)
    assert granted == pytest.approx([0, 0, 0, 60, 60, 60, 120, 120, 120, 900, 900, 900])


def test_acquire_returns_the_seconds_waited(limiter: RateLimiter) -> None:
    assert limiter.acquire("reports", "1", [Rate(1, 30)]) == 0
    assert limiter.acquire("reports", "1", [Rate(1, 30)]) == pytest.approx(30)


def test_a_wait_of_many_seconds_is_announced_once_with_the_time_it_takes(where: Path | str, fake: FakeTime) -> None:
    notices: list[str] = []
    limiter = RateLimiter(where, clock=fake, sleep=fake.sleep, margin_s=0, notify=notices.append)
    for _ in range(3):
        limiter.acquire("metadata", "15300002", [Rate(1, 900)])
        limiter.acquire("auth", "", [Rate(1, 9)])
    limiter.hold_off("media@host", "15300002", 60)
    limiter.acquire("media@host", "15300002", [])
    limiter.close()
    assert notices == [
        "Waiting for a permit of the limit `metadata` of account 15300002: about 15 minutes.",
        "Waiting for a permit of the limit `metadata` of account 15300002: about 15 minutes.",
        "Waiting for the end of a pause RingCX asked for (`media@host`) of account 15300002: about 60 s.",
    ]


def test_threads_that_wait_for_the_same_permit_announce_it_once(
    where: Path | str, open_limiter: Callable[..., RateLimiter]
) -> None:
    notices: list[str] = []
    limiter, stop, rates = open_limiter(where, notify=notices.append), threading.Event(), [Rate(1, 600)]
    limiter.acquire("media", "1", rates)

    def wait() -> None:
        with pytest.raises(Stopped):
            limiter.acquire("media", "1", rates, stop=stop)

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_for_queue(limiter, len(threads))
    stop.set()
    for thread in threads:
        thread.join()
    assert len(notices) == 1


def test_the_margin_is_added_to_each_window(
    where: Path | str, fake: FakeTime, open_limiter: Callable[..., RateLimiter]
) -> None:
    limiter = open_limiter(where, clock=fake, sleep=fake.sleep, margin_s=1.5)
    limiter.acquire("reports", "1", [Rate(1, 30)])
    assert limiter.acquire("reports", "1", [Rate(1, 30)]) == pytest.approx(31.5)


def test_accounts_and_limits_do_not_share_permits(limiter: RateLimiter) -> None:
    for name, account in [("reports", "1"), ("reports", "2"), ("media", "1")]:
        assert limiter.acquire(name, account, [Rate(1, 60)]) == 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rates=st.lists(st.builds(Rate, st.integers(1, 4), st.integers(1, 50).map(float)), min_size=1, max_size=3),
    pauses=st.lists(st.one_of(st.just(0.0), st.floats(0, 60)), min_size=1, max_size=25),
)
def test_a_permit_comes_as_early_as_the_rates_allow_and_never_earlier(
    rates: list[Rate], pauses: list[float], where: Path | str
) -> None:
    fake = FakeTime()
    limiters = [RateLimiter(where, clock=fake, sleep=fake.sleep, margin_s=0) for _ in range(2)]
    account = uuid.uuid4().hex  # the examples share a store
    granted: list[float] = []
    for turn, pause in enumerate(pauses):
        fake.now += pause
        earliest = max([fake.now, *(granted[-r.limit] + r.seconds for r in rates if len(granted) >= r.limit)])
        limiters[turn % 2].acquire("reports", account, rates)
        granted.append(fake.now)
        assert fake.now == pytest.approx(earliest, abs=1e-3)
    assert_within(granted, rates)
    for limiter in limiters:
        limiter.close()


def test_the_permits_of_before_a_restart_still_count(where: Path | str, fake: FakeTime) -> None:
    for expected in (0, 60):
        limiter = RateLimiter(where, clock=fake, sleep=fake.sleep, margin_s=0)
        assert limiter.acquire("reports", "1", [Rate(1, 60)]) == pytest.approx(expected)
        limiter.close()


def test_a_hold_off_stops_everybody_until_it_is_over(
    where: Path | str, fake: FakeTime, open_limiter: Callable[..., RateLimiter]
) -> None:
    first, other = (open_limiter(where, clock=fake, sleep=fake.sleep) for _ in range(2))
    first.hold_off("reports", "1", 90)
    assert other.acquire("reports", "2", [Rate(5, 60)]) == 0
    assert other.acquire("media", "1", ()) == 0
    assert other.acquire("reports", "1", [Rate(5, 60)]) == pytest.approx(90)
    assert first.acquire("reports", "1", [Rate(5, 60)]) == 0


def test_a_hold_off_also_stops_a_limit_without_rates(limiter: RateLimiter) -> None:
    limiter.hold_off("media", "1", 40)
    assert limiter.acquire("media", "1", ()) == pytest.approx(40)
    assert limiter.acquire("media", "1", ()) == 0


@pytest.mark.parametrize("order", [(100, 10), (10, 100)])
def test_the_longest_hold_off_wins(limiter: RateLimiter, order: tuple[float, float]) -> None:
    for seconds in order:
        limiter.hold_off("media", "1", seconds)
    assert limiter.acquire("media", "1", ()) == pytest.approx(100)


@pytest.mark.parametrize("seconds", [0, -5, float("nan")])
def test_a_hold_off_of_no_time_changes_nothing(limiter: RateLimiter, seconds: float) -> None:
    limiter.hold_off("media", "1", seconds)
    assert limiter.acquire("media", "1", ()) == 0


def test_a_hold_off_is_never_longer_than_minutes(limiter: RateLimiter) -> None:
    limiter.hold_off("media", "1", 1e12)
    assert limiter.acquire("media", "1", ()) == pytest.approx(300)


def test_a_clock_set_back_neither_lets_too_many_through_nor_waits_for_hours(
    limiter: RateLimiter, fake: FakeTime
) -> None:
    limiter.acquire("reports", "1", [Rate(1, 60)])
    limiter.hold_off("media", "1", 30)
    fake.now -= 86_400
    assert limiter.acquire("media", "1", ()) == pytest.approx(30)
    fake.now -= 86_400
    assert limiter.acquire("reports", "1", [Rate(1, 60)]) == pytest.approx(60)


def test_prepare_is_called_before_every_look_so_that_a_token_is_fresh_when_the_permit_comes(
    limiter: RateLimiter, fake: FakeTime
) -> None:
    prepared: list[float] = []
    limiter.acquire("metadata", "1", [Rate(1, 900)])
    limiter.acquire("metadata", "1", [Rate(1, 900)], prepare=lambda: prepared.append(fake.now))
    assert prepared[-1] == fake.now
    assert len(prepared) > 100


def test_a_stop_ends_the_wait_at_once_and_leaves_the_place_to_the_next(
    where: Path | str, open_limiter: Callable[..., RateLimiter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.ringcx.limits.limiter._RETRY_EVERY_S", 600.0)
    limiter = open_limiter(where, margin_s=0)
    limiter.acquire("reports", "1", [Rate(1, 600)])
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        limiter.acquire("reports", "1", [Rate(1, 600)], stop=stop)
    assert time.monotonic() - started < PATIENCE_S
    later = FakeTime(time.time())
    other = open_limiter(where, clock=later, sleep=later.sleep, margin_s=0)
    assert other.acquire("reports", "1", [Rate(1, 600)]) < 600


def test_a_set_stop_event_is_noticed_before_a_permit_is_spent(limiter: RateLimiter) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        limiter.acquire("reports", "1", [Rate(1, 600)], stop=stop)
    assert limiter.acquire("reports", "1", [Rate(1, 600)]) == 0


def test_a_waiting_thread_keeps_nobody_else_waiting(
    where: Path | str, open_limiter: Callable[..., RateLimiter]
) -> None:
    limiter = open_limiter(where)
    limiter.acquire("reports", "1", [Rate(1, 600)])
    stop = threading.Event()
    caught: list[type[BaseException]] = []

    def wait_long() -> None:
        try:
            limiter.acquire("reports", "1", [Rate(1, 600)], stop=stop)
        except Stopped as stopped:
            caught.append(type(stopped))

    thread = threading.Thread(target=wait_long)
    thread.start()
    wait_for_queue(limiter, 1)
    limiter.acquire("reports", "2", [Rate(1, 600)])
    limiter.acquire("media", "1", ())
    assert thread.is_alive(), "both got their permits only once it had left"
    stop.set()
    thread.join(PATIENCE_S)
    assert caught == [Stopped]


def test_whoever_waited_first_comes_first(where: Path | str) -> None:
    assert order_of_permits(where, [0] * 5) == [0, 1, 2, 3, 4]


WORKER = """
import sys, threading, time
from pipelines.ringcx.limits.limiter import RateLimiter, parse_rates
where, rates, permits = sys.argv[1], parse_rates(sys.argv[2]), int(sys.argv[3])
limiter = RateLimiter(where, sleep=lambda seconds: time.sleep(min(seconds, 0.5)), margin_s=0.25)
def work(number):
    for _ in range(permits):
        limiter.acquire("reports", "1", rates)
        print(f"{number} {time.time()!r}\\n", end="", flush=True)
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
"""


def test_four_processes_of_eight_threads_never_exceed_the_rates_nor_starve_a_thread(
    where: Path | str, open_limiter: Callable[..., RateLimiter]
) -> None:
    rates = "30/1,40/1.5"
    limiter = open_limiter(where)
    limiter.hold_off("reports", "1", 300)
    command = [sys.executable, "-c", WORKER, str(where), rates, "3"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    wait_for_queue(limiter, 4 * 8)
    free_next_permit(where)
    lines = []
    for number, process in enumerate(processes):
        out, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        lines += [(f"{number}-{thread}", float(at)) for thread, at in (line.split() for line in out.splitlines())]
    times = permits_given(where)
    assert len(times) == len(lines) == 4 * 8 * 3
    assert_within(times, list(parse_rates(rates)))
    late = [at - max(times[turn - 30] + 1.25, times[turn - 40] + 1.75) for turn, at in enumerate(times) if turn >= 40]
    assert statistics.median(late) < 0.75, "slower than the rates allow"
    taken = Counter({who: 0 for who, _ in lines})
    for who, _ in sorted(lines, key=lambda line: line[1]):
        taken[who] += 1
        assert max(taken.values()) - min(taken.values()) <= 2, "somebody was passed over"


def test_killed_processes_neither_break_the_limiter_nor_keep_their_place(
    where: Path | str, fake: FakeTime, open_limiter: Callable[..., RateLimiter]
) -> None:
    limiter = open_limiter(where, clock=fake, sleep=fake.sleep, margin_s=0)
    limiter.acquire("reports", "1", [Rate(1, 10)])
    script = f"""
import time
from pipelines.ringcx.limits.limiter import Rate, RateLimiter
def sleep(seconds):
    print("waiting", flush=True)
    time.sleep(60)
RateLimiter({str(where)!r}, clock=lambda: {fake.now}, sleep=sleep).acquire("reports", "1", [Rate(1, 10)])
"""
    waiting = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "waiting\n"
    waiting.send_signal(signal.SIGKILL)
    waiting.wait(10)
    waiting.stdout.close()
    assert 10 <= limiter.acquire("reports", "1", [Rate(1, 10)]) <= 30
    assert limiter.acquire("reports", "1", [Rate(1, 10)]) == pytest.approx(10)


def test_a_file_that_is_no_database_is_reported_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "limits.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(LimiterBroken, match=r"limits\.sqlite.*may be deleted"):
        RateLimiter(path).acquire("reports", "1", [Rate(1, 1)])


def test_a_folder_that_cannot_be_made_is_reported_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LimiterBroken, match="DATA_DIR"):
        RateLimiter(tmp_path / "file" / "limits.sqlite").acquire("reports", "1", [Rate(1, 1)])


def test_a_free_limit_costs_next_to_nothing(where: Path | str, open_limiter: Callable[..., RateLimiter]) -> None:
    limiter = open_limiter(where)
    started = time.process_time()
    for _ in range(1_000):
        limiter.acquire("media", "1", ())
    assert time.process_time() - started < 0.5


def test_a_closed_limiter_opens_again_when_it_is_used(limiter: RateLimiter) -> None:
    limiter.acquire("reports", "1", [Rate(1, 60)])
    limiter.close()
    limiter.close()
    assert limiter.acquire("reports", "1", [Rate(1, 60)]) == pytest.approx(60)

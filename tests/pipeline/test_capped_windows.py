"""Interaction metadata from a source that caps its answers, or whose window runs the other way: never a quiet gap."""

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from pipelines.errors import ExpectedError
from pipelines.ledger.files import LocalFiles
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.requests import Answer, Period
from pipelines.ringcx.reports.tables import parse_report
from pipelines.steps.pull import windows
from pipelines.steps.pull.reports import pull_each

DAY = date(2026, 3, 2)
START = datetime(2026, 3, 2, tzinfo=UTC)
NOW = datetime(2026, 3, 4, tzinfo=UTC)


class Source:
    """A source of interaction metadata with segments that ended at these moments."""

    def __init__(
        self,
        ended: list[datetime],
        *,
        cap: Callable[[int], int] | None = None,
        newest: bool = True,
        backward: bool = False,
        flag: object = True,
        odd: Sequence[str | None] = (),
    ) -> None:
        self.odd = odd
        self.ended, self.cap, self.newest, self.backward, self.flag = ended, cap, newest, backward, flag
        self.asked: list[Period] = []

    def pull(self, _account_id: str, window: Period) -> Answer:
        self.asked.append(window)
        start, end = window.start, window.end
        if self.backward:
            start, end = start - (end - start), start
        inside = [(at, n) for n, at in enumerate(self.ended) if start <= at < end]
        inside.sort(reverse=self.newest)
        if self.cap is not None:
            inside = inside[: self.cap(len(self.asked))]
        rows: list[dict[str, object]] = [
            {
                "dialogId": f"s-v-{n}",
                "segmentId": f"p-v-{n}",
                "channelClass": "VOICE",
                "segmentEndTimeMs": at.isoformat(),
                "hasRecording": self.flag,
            }
            for at, n in inside
        ]
        rows += [{**rows[0], "segmentId": f"odd-{n}", "segmentEndTimeMs": at} for n, at in enumerate(self.odd)]
        body = json.dumps(rows).encode()
        with tempfile.TemporaryFile() as file:
            file.write(body)
            file.flush()
            return Answer(parse_report("interaction_metadata", file), len(body), "0" * 64)


@pytest.fixture
def pull(tmp_path: Path) -> Callable[..., PullRecord]:
    ledger = Ledger(LocalFiles(tmp_path), clock=lambda: NOW)

    def make(source: Source, window_s: int = 10_800) -> PullRecord:
        day = Period(START, START + timedelta(days=1))
        windowed = windows.WindowedPull(
            account_id="7",
            day=DAY,
            period=day,
            window_s=window_s,
            source=cast("Any", source),
            ledger=ledger,
            run_id="r",
            clock=lambda: NOW,
            log=logging.getLogger("test"),
        )
        return pull_each("interaction_metadata", DAY, ["7"], lambda _: windowed.run())[0]

    make.ledger = ledger  # type: ignore[attr-defined]
    return make


def every(seconds: float, start: datetime = START, end: datetime = START + timedelta(days=1)) -> list[datetime]:
    count = int((end - start).total_seconds() / seconds)
    return [start + timedelta(seconds=n * seconds) for n in range(count)]


def held(pull: Any) -> int:
    return int(pull.ledger.latest_rows("interaction_metadata", DAY, columns=["row_key"]).num_rows)


@pytest.mark.parametrize(
    ("cap", "newest", "hours"),
    [
        (lambda _: 400, True, 24),
        (lambda _: 400, False, 24),
        (lambda _: 397, True, 24),
        (lambda _: 397, False, 24),
        (lambda number: 395 + number % 9, True, 24),
        (lambda _: 1000, True, 24),
        (lambda _: 73, True, 6),
    ],
)
def test_of_a_source_that_caps_its_answers_every_row_is_held(
    pull: Callable[..., PullRecord], cap: Callable[[int], int], newest: bool, hours: int
) -> None:
    rows = every(10, START, START + timedelta(hours=hours))  # 1,080 in a window of three hours
    record = pull(Source(rows, cap=cap, newest=newest))
    assert held(pull) == record.rows == len(rows)
    assert record.cap_suspected == hours / 3
    assert record.with_link == len(rows)
    assert record.largest_window is not None
    assert record.largest_window <= 1000


@pytest.mark.parametrize("cap", [10, 20, 25])
def test_a_small_cap_shows_when_it_is_met_again(pull: Callable[..., PullRecord], cap: int) -> None:
    rows = every(120)  # 90 in a window
    record = pull(Source(rows, cap=lambda _: cap))
    assert held(pull) == record.rows == len(rows)
    assert record.cap_suspected == 8


def test_a_cap_that_shows_only_later_sends_back_to_the_windows_before(pull: Callable[..., PullRecord]) -> None:
    # 397 of 420, so dense to the edges that nothing shows; then a window that starts hours before its first row.
    first = every(25.7, START, START + timedelta(hours=3))
    later = every(10, START + timedelta(hours=6), START + timedelta(hours=9))
    record = pull(Source(first + later, cap=lambda _: 397))
    assert held(pull) == record.rows == len(first) + len(later)
    assert record.cap_suspected == 2


@pytest.mark.parametrize(
    "ended",
    [
        every(27, START, START + timedelta(hours=3)),  # 400 in one window
        every(9, START + timedelta(hours=8)),  # the office opens within a window
        every(36) + every(3600),
    ],
)
def test_a_whole_window_that_only_looks_capped_costs_two_requests_and_is_taken(
    pull: Callable[..., PullRecord], ended: list[datetime]
) -> None:
    source = Source(ended)
    record = pull(source)
    assert (held(pull), record.rows, record.cap_suspected) == (len(ended), len(ended), 0)
    assert len(source.asked) <= 8 + 2 * 8


def test_a_quiet_account_is_asked_for_its_windows_and_no_more(pull: Callable[..., PullRecord]) -> None:
    source = Source(every(613))
    assert pull(source).cap_suspected == 0
    assert len(source.asked) == 8


def test_a_busy_second_in_several_windows_leaves_no_date_incomplete(pull: Callable[..., PullRecord]) -> None:
    seconds = [START + timedelta(hours=hours) for hours in (1, 7, 13)]
    bursts = [at + timedelta(milliseconds=n) for at in seconds for n in range(10)]
    source = Source(bursts)
    record = pull(source)
    assert (held(pull), record.rows, record.cap_suspected) == (30, 30, 0)
    assert len(source.asked) <= 8 + 2 * 22, "the first burst is believed, each further one halved down to its second"
    more = Source(every(600, START, START + timedelta(hours=2)) + bursts)
    assert pull(more).cap_suspected == 0
    assert len(more.asked) == 8, "a number that another answer exceeds is no cap"


@pytest.mark.parametrize("segments", [10, 15, 20, 25])
def test_a_small_account_costs_few_requests_beyond_its_windows(pull: Callable[..., PullRecord], segments: int) -> None:
    requests = 0
    for seed in range(10):
        random = Random(seed)
        source = Source([START + timedelta(seconds=random.uniform(0, 86_400)) for _ in range(8 * segments)])
        assert pull(source).cap_suspected == 0
        requests += len(source.asked)
    assert requests <= 10 * 8 * 1.06


@pytest.mark.parametrize("segments", [50, 100])
def test_a_round_number_of_segments_within_a_minute_is_proven_whole(
    pull: Callable[..., PullRecord], segments: int
) -> None:
    minute = START + timedelta(hours=1)
    record = pull(Source(every(10 / segments, minute, minute + timedelta(seconds=10))))
    assert (held(pull), record.rows) == (segments, segments)


def test_a_window_that_cannot_be_proven_whole_leaves_its_date_incomplete_and_its_rows_kept(
    pull: Callable[..., PullRecord],
) -> None:
    burst = [START + timedelta(minutes=30, milliseconds=n) for n in range(500)]
    with pytest.raises(ExpectedError, match="may be cut off"):
        pull(Source(burst, cap=lambda _: 100))
    assert held(pull) == 100
    ledger: Ledger = pull.ledger  # type: ignore[attr-defined]
    assert ledger.pulls("interaction_metadata", DAY) == []


def test_a_changed_row_of_a_window_that_is_requested_again_counts_as_changed(pull: Callable[..., PullRecord]) -> None:
    three = START + timedelta(hours=3)
    ended = every(27, end=three) + every(22, three)  # the first window has as many rows as the cap that the others show
    pull(Source(ended, cap=lambda _: 400))
    again = pull(Source(ended, cap=lambda _: 400, flag=False))
    assert (again.rows, again.new, again.changed, again.unchanged) == (len(ended), 0, len(ended), 0)


def test_a_window_that_runs_backward_is_refused_with_its_direction(pull: Callable[..., PullRecord]) -> None:
    source = Source(every(600, START - timedelta(days=1)), backward=True)
    with pytest.raises(ExpectedError, match="ran backward, not forward from segmentEndTime"):
        pull(source)
    assert held(pull) == 0
    assert len(source.asked) == 1


def test_rows_at_the_edges_of_a_window_belong_to_it(pull: Callable[..., PullRecord]) -> None:
    assert pull(Source(every(10_800))).rows == 8


def test_an_end_that_cannot_be_right_stops_no_other_row(pull: Callable[..., PullRecord]) -> None:
    odd = ("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", None, "soon")
    assert pull(Source(every(600), odd=odd)).rows == 144 + 8 * 5


@pytest.mark.parametrize(("flag", "unknown"), [("PARTIAL", 8), (2, 8), ("Y", 0), (None, 0), (False, 0)])
def test_a_flag_that_says_neither_yes_nor_no_is_counted_and_its_recording_is_expected(
    pull: Callable[..., PullRecord], flag: object, unknown: int
) -> None:
    record = pull(Source(every(10_800), flag=flag))
    assert record.flags_unknown == unknown
    assert record.with_link == (8 if flag in {"Y", "PARTIAL", 2} else 0)

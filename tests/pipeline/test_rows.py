"""What rows say, whatever they say: every row is accounted for, dated within bounds, and stops nothing else."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.ledger.files import LocalFiles
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.states import FINAL, RecordingState, Status, final
from pipelines.ledger.store import Ledger
from pipelines.ringcx.links import HostList, SegmentLinks
from pipelines.ringcx.reports.columns import (
    AGENT,
    COLUMNS,
    EVENTS,
    GLOBAL,
    INTERACTIONS,
    LINK_COLUMN,
    REPORTS,
    UII_COLUMN,
    ReportName,
)
from pipelines.ringcx.reports.identity import with_row_identity
from pipelines.settings import Calendar, VerifySettings
from pipelines.steps.check.verdict import judge_date
from pipelines.steps.link.allowed_links import AllowedLinks
from pipelines.steps.link.extract_links import linked_days
from pipelines.steps.link.recordings_table import recordings_of
from pipelines.steps.link.register_links import LinksFound, register_links
from pipelines.steps.link.rows import over_at, ready_at
from tests.pulls import NO_ROWS

NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)
DAY = date(2026, 11, 17)
FIRST = date(2020, 1, 1)
BASE = "https://c06-recordings.virtualacd.biz/api/v1/calls/recordings"
ALLOWED = AllowedLinks(HostList(["*.virtualacd.biz"]), SegmentLinks("https://ringcx.ringcentral.com/voice/api", "1"))
START: dict[ReportName, str] = {
    AGENT: "start_dts",
    GLOBAL: "call_start_dts",
    INTERACTIONS: "segment_start_time_ms",
    EVENTS: "call_start_dts",
}


def calendar(zone: str = "UTC", first: date = FIRST) -> Calendar:
    return Calendar(archive_timezone=zone, archive_start_date=first)


class Book:
    """A ledger with rows, and what registering their links says."""

    def __init__(self, root: Path) -> None:
        self.ledger = Ledger(LocalFiles(root), clock=lambda: NOW)

    def add(self, report: ReportName, *rows: Mapping[str, str | None], day: date = DAY) -> None:
        names = [*COLUMNS[report], *(["received_at", "call_start_dts"] if report == EVENTS else [])]
        table = pa.Table.from_pylist(
            [dict.fromkeys(names) | dict(row) for row in rows],
            schema=pa.schema([(name, pa.string()) for name in names]),
        )
        kept = with_row_identity(report, table, "1")
        self.ledger.append_rows(report, day, kept, account_id="1", pulled_at=NOW, run_id="r")

    def register(self, day: date = DAY, first: date = FIRST, zone: str = "UTC") -> LinksFound:
        return register_links(self.ledger, day, calendar(zone, first), allowed=ALLOWED, now=NOW, run_id="r")

    def pull(self, report: ReportName, day: date) -> None:
        times = dict.fromkeys(("period_start", "period_end", "pulled_at"), NOW)
        names = {"report": report, "account_id": "1", "run_id": "r", "sha256": ""}
        self.ledger.append_pull(PullRecord(day=day, **names, **times, **NO_ROWS))

    def know(self, *days: date) -> None:
        """Append a recording of each day."""
        times = dict.fromkeys(("next_attempt_at", "written_at", "first_seen_at"), NOW)
        names = {"account_id": "1", "uii": "", "layout": "mono", "source": GLOBAL, "link": "", "run_id": "r"}
        self.ledger.append_states(
            RecordingState(recording_id=f"{day}", date=day, found_on=day, status=Status.pending, **names, **times)
            for day in days
        )

    def states(self) -> list[RecordingState]:
        return [state for state in self.ledger.states(self.ledger.state_days()).values() if state.same_as is None]

    def dates(self) -> dict[str, date]:
        return {state.recording_id: state.date for state in self.states()}


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "ledger")


def linked(path: str) -> str:
    return f"{BASE}?v=1&accountId=1&file={path}"


def a_row(report: ReportName, start: str | None, *, uii: str = "no-time-in-this-one", **more: str) -> dict[str, Any]:
    row: dict[str, Any] = {UII_COLUMN[report]: uii, START[report]: start}
    if report == INTERACTIONS:
        row |= {"channel_class": "VOICE", "dialog_id": "s-v-1", "segment_id": f"p-v-{uii}", "has_recording": "true"}
    else:
        row[LINK_COLUMN[report]] = linked(f"{'stereo' if report == AGENT else 'mono'}/{uii}.WAV")
    return row | more


GOOD = {report: a_row(report, "2026-11-17T12:00:00Z", uii="202611170700000000000000000001") for report in START}
ODD_STARTS = (
    *("0001-01-01 00:00:00", "01/01/0001 00:00:00", "0001-01-01T00:00:00+14:00", "0202-11-17 12:00:00"),
    *("1899-12-30 00:00:00", "1900-01-01T00:00:00Z", "1970-01-01T00:00:00.000+0000", "2016-01-01T00:00:00Z"),
    *("9999-12-31 23:59:59", "9999-12-31T23:59:59-12:00", "2026-11-22T00:00:00Z", "0", "99999999999999", "-1"),
)


class TestDates:
    def test_linked_days_of_unchanged_rows_read_no_part_and_those_of_new_rows_count_at_once(
        self, book: Book, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def days() -> set[date]:
            return linked_days(book.ledger, DAY, calendar())

        book.add(AGENT, GOOD[AGENT])
        assert days() == {DAY}
        with monkeypatch.context() as broken:
            broken.setattr(LocalFiles, "read", lambda _, name: pytest.fail(f"{name} was read again"))
            assert days() == {DAY}
        book.add(GLOBAL, a_row(GLOBAL, "2026-11-18T00:30:00Z", uii="after-midnight"))
        assert days() == {DAY, DAY + timedelta(days=1)}

    @settings(max_examples=60, deadline=None)
    @given(
        seconds=st.lists(st.sampled_from([-86_395, -5, 5, 43_200, 86_395, 86_405, 172_795]), max_size=3),
        pulled=st.sets(st.tuples(st.sampled_from(REPORTS), st.integers(-3, 3)), max_size=6),
        known=st.sets(st.integers(-3, 3)),
    )
    def test_linked_days_are_those_of_the_rows_and_their_neighbours_that_hold_recordings_and_were_never_pulled(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        seconds: list[int],
        pulled: set[tuple[ReportName, int]],
        known: set[int],
    ) -> None:
        book, one_day = Book(tmp_path_factory.mktemp("ledger")), timedelta(days=1)
        starts = [datetime(2026, 11, 17, tzinfo=UTC) + timedelta(seconds=after) for after in seconds]
        book.add(GLOBAL, *(a_row(GLOBAL, start.isoformat(), uii=f"u{n}") for n, start in enumerate(starts)))
        for report, days_after in pulled:
            book.pull(report, DAY + days_after * one_day)
        book.know(*(DAY + days_after * one_day for days_after in known))

        of_rows = {DAY, *((start + timedelta(seconds=within)).date() for start in starts for within in (-10, 0, 10))}
        never_pulled = {DAY + n * one_day for n in known - {days_after for _, days_after in pulled}}
        expected = of_rows | {day for day in never_pulled if of_rows & {day - one_day, day + one_day}}
        assert linked_days(book.ledger, DAY, calendar()) == expected

    def test_linked_days_lists_the_pulled_dates_only_as_long_as_a_neighbour_may_be_one_that_was_never_pulled(
        self, book: Book, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listed: list[str] = []
        folders = LocalFiles.folders
        monkeypatch.setattr(LocalFiles, "folders", lambda self, prefix: listed.append(prefix) or folders(self, prefix))
        book.add(GLOBAL, GOOD[GLOBAL])
        book.know(DAY)
        linked_days(book.ledger, DAY, calendar())
        assert listed == ["report_rows/", "recording_states/"]
        book.know(DAY - timedelta(days=1))
        book.pull(AGENT, DAY - timedelta(days=1))
        linked_days(book.ledger, DAY, calendar())
        assert listed[2:] == ["report_rows/", "recording_states/", f"report_pulls/report={AGENT}/"]

    @pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Europe/Berlin", "Pacific/Kiritimati"])
    @pytest.mark.parametrize("start", ODD_STARTS)
    def test_a_start_outside_the_bounds_leaves_the_pulled_day_and_stops_no_other_row(
        self, book: Book, start: str, zone: str
    ) -> None:
        for report in START:
            book.add(report, a_row(report, start), GOOD[report])
        counts = book.register(zone=zone).counts
        assert counts["recordings_found"] == counts["recordings_new"] == 6  # both mono reports name the same two
        odd = [state for state in book.states() if "no-time" in state.recording_id]
        assert {(state.date, state.started_at) for state in odd} == {(DAY, None)}
        assert DAY in linked_days(book.ledger, DAY, calendar(zone))

    def test_the_time_in_the_uii_counts_where_the_start_does_not(self, book: Book) -> None:
        book.add(GLOBAL, a_row(GLOBAL, "0001-01-01T00:00:00Z", uii="202611172230000132110000000001"))
        book.register()
        (state,) = book.states()
        assert (state.date, state.started_at) == (date(2026, 11, 18), datetime(2026, 11, 18, 3, 30, tzinfo=UTC))

    def test_a_start_with_its_day_before_its_month_yields_to_the_time_in_the_uii(self, book: Book) -> None:
        day = date(2026, 11, 5)
        row = a_row(AGENT, "05/11/2026 12:00:00", uii="20261105070000013211000000000001")  # 11 May, as it is documented
        book.add(AGENT, row, day=day)
        book.register(day)
        (state,) = book.states()
        assert (state.date, state.started_at) == (day, datetime(2026, 11, 5, 12, tzinfo=UTC))

    @pytest.mark.parametrize(
        ("path", "stored"),
        [
            ("1/202611/16/a.WAV", date(2026, 11, 16)),
            ("1/202001/01/a.WAV", FIRST),
            *((f"1/{odd}/a.WAV", DAY) for odd in ("201912/31", "000105/12", "999912/31", "202613/45", "202611/20")),
        ],
    )
    def test_the_date_in_a_path_is_bounded_too(self, book: Book, path: str, stored: date) -> None:
        book.add(GLOBAL, a_row(GLOBAL, None, recording_url=linked(path)), GOOD[GLOBAL])
        assert book.register().counts["recordings_new"] == 2
        assert book.dates()[f"1/{path}"] == stored

    @settings(max_examples=60, deadline=None)
    @given(
        start=st.datetimes(),
        offset=st.integers(-840, 840),
        zone=st.sampled_from(sorted(available_timezones())),
        first=st.dates(date(1971, 1, 1), date(2040, 1, 1)),
        report=st.sampled_from(sorted(START)),
        uii=st.one_of(st.just("x"), st.datetimes().map(lambda at: f"{at:%Y%m%d%H%M%S}0001"), st.text("0123456789")),
    )
    @example(datetime.min, 840, "Pacific/Kiritimati", FIRST, GLOBAL, "00010101000000")  # noqa: DTZ901
    @example(datetime.max, -840, "Etc/GMT+12", FIRST, INTERACTIONS, "99991231235959")  # noqa: DTZ901
    def test_no_time_in_no_zone_leads_out_of_the_bounds_and_every_run_says_the_same(  # noqa: PLR0917
        self,
        tmp_path_factory: pytest.TempPathFactory,
        start: datetime,
        offset: int,
        zone: str,
        first: date,
        report: ReportName,
        uii: str,
    ) -> None:
        book = Book(tmp_path_factory.mktemp("ledger"))
        sign, minutes = "-+"[offset >= 0], abs(offset)
        text = f"{start.isoformat()}{sign}{minutes // 60:02d}:{minutes % 60:02d}"
        book.add(report, a_row(report, text, uii=uii or "x"), GOOD[report])
        assert book.register(zone=zone, first=first).counts["recordings_new"] == 2
        before = book.dates()
        assert all(min(first, DAY) <= stored <= DAY + timedelta(days=2) for stored in before.values())
        assert book.register(zone=zone, first=first).counts["recordings_new"] == 0
        assert book.dates() == before

    @pytest.mark.parametrize("start", ["2026-11-10T12:00:00Z", "2019-06-01T12:00:00Z", "2026-11-16T23:59:00Z"])
    @pytest.mark.parametrize("moved", [(FIRST, date(2019, 1, 1)), (date(2026, 11, 17), date(2019, 1, 1))])
    def test_moving_the_first_date_back_redates_and_repeats_nothing_that_is_known(
        self, book: Book, start: str, moved: tuple[date, date]
    ) -> None:
        book.add(GLOBAL, a_row(GLOBAL, start))
        book.register(first=moved[0])
        before = book.dates()
        again = book.register(first=moved[1])
        assert (again.counts["recordings_new"], again.counts["recordings_known"]) == (0, 1)
        assert book.dates() == before
        assert set(before.values()) <= {DAY} | linked_days(book.ledger, DAY, calendar(first=moved[1]))

    def test_a_recording_that_another_zone_dated_to_a_date_never_pulled_is_read_by_the_run_that_found_it(
        self, book: Book
    ) -> None:
        book.add(GLOBAL, a_row(GLOBAL, f"{DAY}T20:00:00Z"))
        book.register(zone="Asia/Tokyo")
        next_day = DAY + timedelta(days=1)
        assert set(book.dates().values()) == {next_day}
        linked = linked_days(book.ledger, DAY, calendar())
        assert next_day in linked
        assert len(recordings_of(book.ledger, DAY, linked)) == 1

    def test_an_event_received_in_the_year_9999_is_asked_for_now(self) -> None:
        row = {"account_id": "1", "received_at": "9999-12-31T23:59:59Z"}
        assert ready_at(EVENTS, over_at(EVENTS, row), NOW) <= NOW + timedelta(minutes=2)


class TestLinks:
    @pytest.mark.parametrize(
        "form",
        [
            *("?recordingId={}", "?v=1&recordingId={}&compliance=true", "?v=1&amp;file=1/{}.WAV", "?v=1&File=1/{}.WAV"),
            *("?v=1;file=1/{}.WAV", "?v=1&#38;FILE=1/{}.WAV", "?file=&id={}", "/{}", "?{}", "?file=a;{}.WAV", "#{}"),
        ],
    )
    def test_links_that_differ_are_different_recordings(self, book: Book, form: str) -> None:
        rows = [a_row(GLOBAL, None, uii=f"u{n}", recording_url=BASE + form.format(n)) for n in range(4)]
        book.add(GLOBAL, *rows)
        found = book.register()
        assert (found.counts["links_in_rows"], found.counts["recordings_found"]) == (4, 1 if form == "#{}" else 4)
        assert len(found.shared) == (form == "#{}")

    @pytest.mark.parametrize(
        ("first", "other"),
        [
            ("?recordingId=7&v=1", "? v = 1 & recordingid = 7"),
            ("?v=1&amp;file=1/7.WAV", "?file=1/7.WAV&v=2"),
            ("?v=1;File=1/7.WAV", "?file=1/7.WAV"),
            ("?file=1/7.WAV", "/?FILE=1%2F7.WAV"),
        ],
    )
    def test_one_link_written_in_two_ways_is_one_recording(self, book: Book, first: str, other: str) -> None:
        book.add(GLOBAL, *(a_row(GLOBAL, None, recording_url=BASE + form) for form in (first, other)))
        found = book.register()
        assert (found.counts["links_in_rows"], found.counts["recordings_found"], found.shared) == (2, 1, [])

    @pytest.mark.parametrize("word", ["null", "NULL", "N/A", "n/a", "-", "--", "none", "None", " ", "", "undefined"])
    def test_a_word_for_nothing_is_no_link(self, book: Book, word: str) -> None:
        for report in (AGENT, GLOBAL, EVENTS):
            book.add(report, a_row(report, None, **{LINK_COLUMN[report]: word}))
        book.add(INTERACTIONS, a_row(INTERACTIONS, None, has_recording=word, interaction_recording_location=word))
        assert book.register().counts["recordings_found"] == 0

    @pytest.mark.parametrize("between", [" ", ", ", ",", ";", "; ", "|", " | ", "\n", "\r\n", "\t"])
    def test_of_two_links_in_one_cell_both_are_recordings(self, book: Book, between: str) -> None:
        cell = f"{linked('1/a.WAV')}{between}{linked('1/b.WAV')}"
        book.add(GLOBAL, a_row(GLOBAL, None, recording_url=cell))
        assert book.register().counts["recordings_found"] == 2
        assert sorted(book.dates()) == ["1/1/a.WAV", "1/1/b.WAV"]
        assert {state.status for state in book.states()} == {Status.pending}

    def test_stray_blanks_within_a_link_do_not_part_it(self, book: Book) -> None:
        book.add(GLOBAL, a_row(GLOBAL, None, recording_url=f"{BASE}?v=1& accountId = 1&file= 1/a.WAV "))
        book.register()
        assert list(book.dates()) == ["1/1/a.WAV"]


class TestInteractions:
    @pytest.mark.parametrize("yes", ["true", "True", "TRUE", "Y", "yes", "1", " true "])
    def test_every_way_to_say_yes_is_a_recording(self, book: Book, yes: str) -> None:
        book.add(INTERACTIONS, a_row(INTERACTIONS, None, has_recording=yes))
        book.register()
        (state,) = book.states()
        assert (state.layout, state.status) == ("stereo", Status.pending)

    @pytest.mark.parametrize(("kind", "expected"), [("AGENT", 1), (None, 1), ("IVR", 0), ("BOT", 0)])
    def test_an_unclear_word_makes_a_recording_expected_of_an_agents_leg_only(
        self, book: Book, kind: str | None, expected: int
    ) -> None:
        book.add(INTERACTIONS, a_row(INTERACTIONS, None, has_recording="partial") | {"segment_type": kind})
        assert book.register().counts["recordings_found"] == expected

    @pytest.mark.parametrize("kind", ["IVR", "BOT"])
    def test_a_menu_whose_row_says_yes_has_a_recording(self, book: Book, kind: str) -> None:
        book.add(INTERACTIONS, a_row(INTERACTIONS, None, has_recording="true", segment_type=kind))
        assert book.register().counts["recordings_found"] == 1

    @pytest.mark.parametrize("flag", ["true", "false", "N", "0", None])
    def test_the_location_of_the_whole_call_is_a_mono_recording(self, book: Book, flag: str | None) -> None:
        row = a_row(
            INTERACTIONS,
            "2026-11-17T12:05:00Z",
            interaction_recording_location=linked("1/202611/17/call-1.WAV"),
            dialog_start_time_ms="2026-11-17T12:00:00Z",
            dialog_duration_ms="90000",
        )
        book.add(INTERACTIONS, row | {"has_recording": flag})
        counts = book.register().counts
        assert (counts["mono"], counts["stereo"]) == (1, flag == "true")
        (mono,) = (state for state in book.states() if state.layout == "mono")
        assert mono.started_at == datetime(2026, 11, 17, 12, tzinfo=UTC)
        assert mono.expected_duration_s == 90

    def test_the_call_that_a_report_names_too_is_one_recording(self, book: Book) -> None:
        link = linked("1/202611/17/call-1.WAV")
        book.add(GLOBAL, a_row(GLOBAL, "2026-11-17T12:00:00Z", recording_url=link))
        book.add(INTERACTIONS, a_row(INTERACTIONS, None, has_recording="false", interaction_recording_location=link))
        assert book.register().counts["recordings_found"] == 1

    def test_one_leg_whose_uii_has_another_letter_case_in_the_other_source_is_one_recording(self, book: Book) -> None:
        at = "2026-11-17T12:00:00Z"
        agent = {"agent_id": "Agent7", "session_id": "2"}
        book.add(AGENT, a_row(AGENT, at, uii="2026111707000001ef01") | agent)
        row = a_row(INTERACTIONS, at, uii="2026111707000001Ef01", segment_participant_id="agent7")
        book.add(INTERACTIONS, row)
        found = book.register()
        assert (found.counts["recordings_found"], found.counts["of_both_sources"]) == (1, 1)
        assert {state.uii for state in book.states()} <= {"2026111707000001ef01", "2026111707000001Ef01"}


@pytest.mark.parametrize(("other", "shared"), [("20261116070000000000000000000001A", []), ("2", ["1/mono/x.WAV"])])
def test_a_link_that_the_rows_of_two_dates_give_to_two_calls_is_no_whole_date(
    book: Book, other: str, shared: list[str]
) -> None:
    before, link = DAY - timedelta(days=1), {"recording_url": linked("mono/x.WAV")}
    book.add(GLOBAL, a_row(GLOBAL, "2026-11-16T23:59:00Z", uii="20261116070000000000000000000001a") | link, day=before)
    book.add(GLOBAL, a_row(GLOBAL, "2026-11-17T12:00:00Z", uii=other) | link)
    assert book.register(before).shared == []
    assert book.register().shared == shared
    settings = VerifySettings.model_validate({"archive_bucket": "bucket", "ringcx_account_ids": ["1"]})
    assert judge_date(book.ledger, None, DAY, settings, now=NOW).counts["shared_by_calls"] == len(shared)


@pytest.mark.parametrize("status", sorted(FINAL))
def test_a_lost_recording_takes_its_newest_link_and_stays_lost_until_a_retry_is_requested(
    book: Book, status: Status
) -> None:
    def row(signature: str) -> dict[str, str]:
        return a_row(GLOBAL, "2026-11-17T12:00:00Z", recording_url=f"{linked('mono/x.WAV')}&Signature={signature}")

    book.add(GLOBAL, row("old"))
    book.register()
    (before,) = book.states()
    lost = final(before, status, "forbidden", NOW, "r")
    book.ledger.append_states([lost])
    book.add(GLOBAL, row("new"))
    for _ in range(2):
        book.register()
        (after,) = book.states()
        assert after == replace(lost, link=after.link)
        assert after.link.endswith("Signature=new")

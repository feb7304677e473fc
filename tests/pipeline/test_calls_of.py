"""What the table `calls` says of rows that disagree, lack something or lie about when they were."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipelines.ledger.files import LocalFiles
from pipelines.ringcx.reports.columns import AGENT, EVENTS, GLOBAL, INTERACTIONS, UII_COLUMN, ReportName
from pipelines.settings import VerifySettings
from pipelines.steps.calls.table import calls_of, write_calls
from tests.memory_bucket import a_bucket
from tests.pipeline.test_rows import DAY, FIRST, Book, a_row

NEXT = DAY + timedelta(days=1)
WHOLE = "1/mono/u1.WAV"


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path / "ledger")


def options(zone: str = "UTC", first: date = FIRST) -> VerifySettings:
    return VerifySettings(archive_bucket="archive", archive_timezone=zone, archive_start_date=first)


def calls(book: Book, day: date = DAY, settings: VerifySettings | None = None) -> list[dict[str, Any]]:
    return calls_of(book.ledger, a_bucket(), day, settings=settings or options()).to_pylist()


def unrecorded(report: ReportName, start: str | None, uii: str, **more: str) -> dict[str, Any]:
    row = a_row(report, start, uii=uii, **more)
    if report == INTERACTIONS:
        return row | {"has_recording": "false"}
    return {name: cell for name, cell in row.items() if "recording_url" not in name}


def test_a_recording_of_a_whole_call_has_the_agents_that_any_report_names(book: Book) -> None:
    start = "2026-11-17 10:00:00"
    book.add(GLOBAL, a_row(GLOBAL, start, uii="u1", connect_id="1", connected_name="One", source_name="Sales"))
    for agent, queue in (("1", "Sales"), ("2", "Support")):
        more = {"agent_id": agent, "session_id": agent, "product_name": queue, "agent_username": f"agent{agent}"}
        book.add(AGENT, unrecorded(AGENT, start, "u1", **more))
    book.register()
    (row,) = (row for row in calls(book) if row["recording_id"] == WHOLE)
    assert (row["agent_id"], row["agent_login"], row["queue_name"]) == ("1; 2", "agent1; agent2", "Sales; Support")


def test_an_agent_who_had_a_call_twice_has_the_hold_and_the_queue_of_each_part_in_its_own_row(book: Book) -> None:
    parts = [("10:00:00", "7", "Sales", "00:00:40"), ("10:05:00", "8", "Support", "00:00:05")]
    for session, (start, queue, name, hold) in enumerate(parts, 1):
        book.add(
            INTERACTIONS,
            a_row(INTERACTIONS, f"2026-11-17T{start}.400Z", uii="u1")
            | {"segment_id": f"p-v-{session}", "segment_duration_ms": "60000", "segment_participant_id": "1"}
            | {"segment_type": "AGENT"},
        )
        more = {"session_id": str(session), "agent_id": "1", "duration": "00:01:00", "hold_duration": hold}
        more |= {"product_id": queue, "product_name": name, "agent_username": "grace"}
        book.add(AGENT, unrecorded(AGENT, f"2026-11-17 {start}", "u1", **more))
    other = {"session_id": "3", "agent_id": "2", "agent_username": "other", "duration": "00:01:00"}
    book.add(AGENT, unrecorded(AGENT, "2026-11-17 10:00:00", "u1", **other))
    book.register()
    found = sorted(
        (row["started_local"][11:16], row["queue_id"], row["queue_name"], row["hold_s"]) for row in calls(book)
    )
    assert found == [("10:00", "7", "Sales", 40.0), ("10:05", "8", "Support", 5.0)]
    assert {(row["agent_id"], row["agent_login"]) for row in calls(book)} == {("1", "grace")}


@pytest.mark.parametrize("report", [AGENT, GLOBAL, INTERACTIONS, EVENTS])
def test_rows_without_a_uii_and_without_a_recording_are_each_in_the_table(book: Book, report: ReportName) -> None:
    leg = {AGENT: "session_id", INTERACTIONS: "segment_id"}.get(
        report, "connect_id" if report == GLOBAL else "agent_id"
    )
    for number, blank in enumerate((None, " ")):
        book.add(report, unrecorded(report, None, "") | {UII_COLUMN[report]: blank, leg: f"p-v-{number}"})
    book.add(GLOBAL, a_row(GLOBAL, "2026-11-17 10:00:00", uii=""))  # one with a recording, which is not theirs
    book.register()
    kept = book.ledger.latest_rows(report, DAY).num_rows - (report == GLOBAL)
    found = [row for row in calls(book) if row["state"] == "none"]
    assert kept
    assert len({row["uii"] for row in found}) == len(found) == kept
    assert all(row["uii"].startswith("row-") for row in found)


@pytest.mark.parametrize(
    ("start", "zone"), [("0001-01-01 00:00:00", "America/Sao_Paulo"), ("9999-12-31 23:59:59", "Pacific/Auckland")]
)
def test_a_recording_whose_row_has_a_start_that_no_zone_can_tell_is_in_the_table_without_one(
    book: Book, start: str, zone: str
) -> None:
    book.add(GLOBAL, a_row(GLOBAL, start, uii="u1"))
    book.register()
    (row,) = calls(book, settings=options(zone))
    assert (row["recording_id"], row["started_at"], row["started_local"]) == (WHOLE, None, None)


def test_a_call_over_midnight_without_a_recording_has_one_row_also_where_its_uii_is_written_in_two_ways(
    book: Book,
) -> None:
    book.add(AGENT, unrecorded(AGENT, "2026-11-17 23:59:00", "Abc", session_id="1"))
    book.add(AGENT, unrecorded(AGENT, "2026-11-18 00:05:00", " aBC ", session_id="2"))
    book.add(GLOBAL, unrecorded(GLOBAL, "2026-11-18 00:05:00", "abc"), day=NEXT)
    assert [len(calls(book, day)) for day in (DAY, NEXT)] == [1, 0]


STARTS = st.one_of(
    st.none(),
    st.builds(
        lambda days, seconds: f"{DAY + timedelta(days=days)} {timedelta(seconds=seconds)!s:0>8}",
        st.integers(-4, 4),
        st.integers(0, 86_399),
    ),
)
UIIS = st.sampled_from(["u1", "U1", "20261116235900", "20261117235900", "20261118000500", "20261001000000", ""])
ROW = st.tuples(st.sampled_from([AGENT, GLOBAL, EVENTS]), STARTS, UIIS)


@pytest.mark.slow
@hypothesis_settings(max_examples=20, deadline=None)
@given(
    st.lists(ROW, min_size=1, max_size=6),
    st.sampled_from(["UTC", "America/New_York", "Pacific/Auckland"]),
    st.sampled_from([FIRST, DAY, NEXT]),
)
@example([(GLOBAL, None, "20261116235900")], "UTC", FIRST)  # only its UII says when it was
@example([(GLOBAL, "2026-11-14 10:00:00", "u1")], "UTC", FIRST)  # long before it was pulled
@example([(GLOBAL, "2026-11-19 10:00:00", "u1")], "UTC", FIRST)  # after it
@example([(GLOBAL, "2026-11-16 10:00:00", "u1")], "UTC", DAY)  # before the first date
@example([(AGENT, "2026-11-17 23:59:00", "u1"), (AGENT, "2026-11-18 00:05:00", "U1")], "UTC", FIRST)
@example([(GLOBAL, "0001-01-01 00:00:00", "u1"), (GLOBAL, "9999-12-31 23:59:59", "u2")], "UTC", FIRST)
def test_every_call_of_the_rows_pulled_is_in_exactly_one_dates_table(
    rows: list[tuple[ReportName, str | None, str]], zone: str, first: date
) -> None:
    with TemporaryDirectory() as folder:
        book = Book(Path(folder))
        for number, (report, start, uii) in enumerate(rows):
            book.add(report, unrecorded(report, start, uii, **({"session_id": str(number)} if report == AGENT else {})))
        around = [DAY + timedelta(days=days) for days in range(-4, 5)]
        found = [row["uii"].lower() for day in around for row in calls(book, day, options(zone, first))]
    named = {uii.lower() for _, _, uii in rows if uii}
    assert Counter(uii for uii in found if not uii.startswith("row-")) == Counter(named)
    assert any(uii.startswith("row-") for uii in found) == any(not uii for _, _, uii in rows)


def test_a_stored_table_is_compared_with_states_and_rows_and_no_other_part_is_listed(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, listed, list_files = a_bucket(), set[str](), LocalFiles.list
    book.add(GLOBAL, a_row(GLOBAL, "2026-11-17 10:00:00", uii="u1"))
    book.register()
    write_calls(book.ledger, bucket, DAY, settings=options())
    monkeypatch.setattr(
        LocalFiles, "list", lambda self, prefix: listed.add(prefix.split("/")[0]) or list_files(self, prefix)
    )
    assert write_calls(book.ledger, bucket, DAY, settings=options()).unchanged
    assert listed == {"recording_states", "report_rows"}


def test_a_table_is_made_again_when_a_date_far_away_says_something_else_of_its_recordings(
    book: Book, tmp_path: Path
) -> None:
    far, bucket = DAY + timedelta(days=9), a_bucket()
    late = {"uii": "u1", "connect_id": "1"}
    book.add(GLOBAL, a_row(GLOBAL, "2026-11-17 10:00:00", **late), day=far)
    book.register(far)
    assert book.dates() == {WHOLE: DAY}

    def write() -> Any:
        return write_calls(book.ledger, bucket, DAY, settings=options())

    assert write().table["agent_id"].to_pylist() == ["1"]
    assert write().unchanged
    book.add(AGENT, unrecorded(AGENT, "2026-11-17 10:00:00", "u1", agent_id="2", session_id="1"), day=far)
    again = write()
    assert not again.unchanged
    assert again.table["agent_id"].to_pylist() == ["1; 2"]

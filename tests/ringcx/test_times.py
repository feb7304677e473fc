"""Times and durations are read in each documented form, and nonsense is None and no error."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ringcx.reports.times import parse_hms, parse_report_time, uii_time

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WHOLE_SECONDS = st.integers(-62_000_000_000, 253_000_000_000).map(lambda seconds: EPOCH + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("08/28/2020 13:19:38", datetime(2020, 8, 28, 13, 19, 38, tzinfo=UTC)),
        ("2020-04-22T13:59:49.000+0000", datetime(2020, 4, 22, 13, 59, 49, tzinfo=UTC)),
        ("2020-04-22T13:59:49.123Z", datetime(2020, 4, 22, 13, 59, 49, 123000, tzinfo=UTC)),
        ("2020-04-22T13:59:49.1234567+00:00", datetime(2020, 4, 22, 13, 59, 49, 123456, tzinfo=UTC)),
        ("2020-04-22T13:59:49-0700", datetime(2020, 4, 22, 20, 59, 49, tzinfo=UTC)),
        ("2020-06-30 21:36:37", datetime(2020, 6, 30, 21, 36, 37, tzinfo=UTC)),
        ("  2020-06-30 21:36:37 ", datetime(2020, 6, 30, 21, 36, 37, tzinfo=UTC)),
    ],
)
def test_every_documented_form_of_a_time_is_read_as_utc(text: str, expected: datetime) -> None:
    assert parse_report_time(text) == expected
    assert str(parse_report_time(text)).endswith("+00:00")


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "   ", "0", "n/a", "2020-04-22", "28/08/2020 13:19:38", "02/30/2020 00:00:00", "20200422T135949"),
        *("13:19:38", "2020-04-22T25:00:00Z", "0001-01-01T00:00:00+2300", "9999-12-31T23:59:59-2300", "1587563989000"),
        *("٢٠٢٠-٠٤-٢٢ ٠٠:٠٠:٠٠", "08/28/2020 13:19:38 and more"),
    ],
)
def test_what_is_no_time_is_none_and_no_error(text: str | None) -> None:
    assert parse_report_time(text) is None


@given(WHOLE_SECONDS, st.integers(-23 * 60, 23 * 60))
def test_a_time_written_in_any_zone_comes_back_as_the_same_instant(moment: datetime, minutes: int) -> None:
    local = moment.astimezone(timezone(timedelta(minutes=minutes)))
    assert parse_report_time(local.isoformat()) == moment
    assert parse_report_time(local.isoformat().replace("T", " ")) == moment


@given(WHOLE_SECONDS)
def test_a_time_in_the_us_form_comes_back_as_the_same_instant(moment: datetime) -> None:
    text = f"{moment.month:02}/{moment.day:02}/{moment.year:04} {moment:%H:%M:%S}"
    assert parse_report_time(text) == moment


@given(st.text())
def test_no_text_at_all_makes_an_error(text: str) -> None:
    parse_report_time(text)
    uii_time(text)
    parse_hms(text)


def test_a_uii_begins_with_the_time_in_new_york_summer_and_winter() -> None:
    assert uii_time("202008281319380132120000030797") == datetime(2020, 8, 28, 17, 19, 38, tzinfo=UTC)
    assert uii_time("202001281319380132120000030797") == datetime(2020, 1, 28, 18, 19, 38, tzinfo=UTC)


def test_the_apostrophe_before_a_uii_does_not_matter() -> None:
    assert uii_time("'202008281319380132120000030797") == uii_time("202008281319380132120000030797")


def test_of_the_hour_that_comes_twice_the_first_is_meant() -> None:
    assert uii_time("20201101013000") == datetime(2020, 11, 1, 5, 30, tzinfo=UTC)


@pytest.mark.parametrize("uii", [None, "", "2020", "s-v-93bd0e6f-1721690897808", "20201341000000", "00000000000000"])
def test_a_uii_without_a_time_has_none(uii: str | None) -> None:
    assert uii_time(uii) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("00:05:09", 309.0), ("26:00:00", 93600.0), ("0:00:01.5", 1.5), ("309", 309.0), (" 12.25 ", 12.25), ("0", 0.0)],
)
def test_a_duration_is_read_in_both_forms(text: str, expected: float) -> None:
    assert parse_hms(text) == expected


@pytest.mark.parametrize("text", [None, "", "-1", "00:60:00", "5:09", "nan", "inf", "1e9", "9" * 400, "n/a"])
def test_what_is_no_duration_is_none(text: str | None) -> None:
    assert parse_hms(text) is None


@given(st.integers(0, 10**9))
def test_any_number_of_whole_seconds_comes_back(seconds: int) -> None:
    hms = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    assert parse_hms(hms) == parse_hms(str(seconds)) == seconds

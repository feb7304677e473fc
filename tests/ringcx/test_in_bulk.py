"""What is read in bulk is what would be read one by one; what is not read in bulk is null and never wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ringcx.errors import LinkRefused
from pipelines.ringcx.in_bulk import address_parts, link_files, moments, report_times
from pipelines.ringcx.links import LONGEST_LINK, parse_link
from pipelines.ringcx.segments import segment_recording_id
from pipelines.ringcx.times import parse_moment, parse_report_time

LINK = (
    "https://aws46-recordings.vacd.biz/api/v1/calls/recordings?v=1&accountId=15300002&bucket=aws46-recordings"
    "&region=us-west-2&compliance=true&file=15300002/15300002/202007/30/202007302136360132130000036446-1.WAV"
)
cleaving = st.sampled_from("0123456789-/: .TZtz+&=?%file\n\t٣é\u202e")


def column(texts: list[str | None]) -> pa.ChunkedArray[Any]:
    return pa.chunked_array([pa.array(texts, pa.string())])


def one_by_one(read: Callable[[str], Any], text: str | None) -> Any:
    if text is None:
        return None
    try:
        return read(text)
    except LinkRefused:
        return None


def agrees(in_bulk: Callable[[Any], Any], read: Callable[[str], Any], texts: list[str | None]) -> None:
    for text, found in zip(texts, in_bulk(column(texts)).to_pylist(), strict=True):
        assert found is None or found == one_by_one(read, text), text


def altered(texts: list[str]) -> st.SearchStrategy[str]:
    """One of the texts, with a piece of it replaced by something that may change what it means."""

    def cut(text: str, place: int, length: int, piece: str) -> str:
        place %= len(text) + 1
        return text[:place] + piece + text[place + length :]

    return st.builds(
        cut,
        st.sampled_from(texts),
        st.integers(0, 400),
        st.integers(0, 3),
        st.text(cleaving | st.characters(), max_size=4),
    ).filter(lambda text: not any(0xD800 <= ord(one) <= 0xDFFF for one in text))


TIMES = [
    "11/18/2026 09:05:07",
    "2026-11-18 09:05:07",
    "2026-11-18T09:05:07.123Z",
    "1763456707123",
    "0000-01-01 00:00:00",
]


@given(st.lists(st.none() | altered(TIMES), max_size=20))
def test_times_read_in_bulk_are_the_times_read_one_by_one(texts: list[str | None]) -> None:
    agrees(report_times, parse_report_time, texts)
    agrees(moments, parse_moment, texts)


@given(st.lists(st.none() | altered([LINK]), max_size=20))
def test_files_read_in_bulk_are_the_files_read_one_by_one(links: list[str | None]) -> None:
    agrees(link_files, lambda text: parse_link(text, "1").file_path, links)


@given(st.lists(st.none() | altered(["s-a12bc34.~_", "..", "."]), max_size=20))
def test_ids_that_need_no_encoding_are_told_from_those_that_do(ids: list[str | None]) -> None:
    agrees(address_parts, lambda text: segment_recording_id("1", text, "s").split("/")[1], ids)


def test_all_that_the_source_writes_is_read_in_bulk() -> None:
    assert link_files(column([LINK])).to_pylist() == [parse_link(LINK, "1").file_path]
    assert address_parts(column(["s-a0d15b2bed73az199", "p-1"])).to_pylist() == ["s-a0d15b2bed73az199", "p-1"]
    at = datetime(2026, 11, 18, 9, 5, 7, tzinfo=UTC)
    assert (
        report_times(column(["11/18/2026 09:05:07", "2026-11-18 09:05:07", "2026-11-18T09:05:07Z"])).to_pylist()
        == [at] * 3
    )
    later = at.replace(microsecond=123000)
    of_the_current_api = ["2026-11-18T09:05:07.123Z", str(int(later.timestamp() * 1000))]
    assert moments(column(of_the_current_api)).to_pylist() == [later] * 2


@pytest.mark.parametrize(
    "text",
    ["02/30/2026 00:00:00", "2026-02-29 00:00:00", "11/18/2026 24:00:00", "11/18/2026 23:59:60", "0000-01-01 00:00:00"],
)
def test_a_time_that_is_none_is_none_in_bulk_too(text: str) -> None:
    assert report_times(column([text])).to_pylist() == [None]


@pytest.mark.parametrize(
    "link",
    [
        LINK + "&file=another.WAV",
        LINK + "%2F",
        LINK + "/",
        LINK + " ",
        LINK.replace("https", "http"),
        LINK + "&v=" + "1" * LONGEST_LINK,
    ],
)
def test_an_unusual_link_is_left_to_be_read_by_itself(link: str) -> None:
    assert link_files(column([link])).to_pylist() == [None]

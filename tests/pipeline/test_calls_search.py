"""A search of the table `calls` with an index of the months and without: numbers as people write them, and pages."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import date
from typing import Any
from unittest.mock import Mock

import duckdb
import pyarrow as pa
import pytest

from pipelines.archive.errors import StorageUnavailable
from pipelines.archive.keys import calls_key
from pipelines.settings import StorageSettings
from pipelines.steps.calls import search as search_module
from pipelines.steps.calls.month_index import index_months
from pipelines.steps.calls.numbers import to_e164
from pipelines.steps.calls.search import CallSearch, Query
from pipelines.steps.calls.table import CALLS_FILE_SCHEMA, encode
from tests.memory_bucket import a_bucket

FIRST, LAST = date(2026, 11, 1), date(2026, 11, 30)


def store(bucket: Any, day: date, numbers: Sequence[str], region: str) -> None:
    rows = [
        {"account_id": "1", "uii": f"{day}-{place}", "ani": number, "ani_e164": to_e164(number, region)}
        for place, number in enumerate(numbers)
    ]
    bucket.put(calls_key("", day), encode(pa.Table.from_pylist(rows, CALLS_FILE_SCHEMA)))


def search_of(bucket: Any, region: str = "US") -> CallSearch:
    return CallSearch(bucket, StorageSettings(archive_bucket="archive", archive_phone_region=region))


@pytest.mark.parametrize("with_index", [False, True])
@pytest.mark.parametrize(
    ("region", "written", "number"),
    [
        ("DE", "55501", "+4930555012345"),  # a part that is long enough for a number of its own
        ("GB", "7946001", "+442079460018"),
        ("AU", "1234567", "+61212345678"),
        ("US", "602-555-0142 ext 12", "+16025550142"),
        ("US", "(602) 555-0142x12", "+16025550142"),
        ("US", "602 555 0142 #7", "+16025550142"),
        ("US", "011442079460018", "+442079460018"),
        ("DE", "011442079460018", "+442079460018"),
        ("US", "+44 (0)20 7946 0018", "+442079460018"),
        ("US", "+44 (0)20 7946", "+442079460018"),
        ("US", "0044 20 7946 0018", "+442079460018"),
        ("GB", "020 7946", "+442079460018"),
        ("US", "602\u2011555\u20110142", "+16025550142"),
        ("US", "+1\u00a0(602)\u00a0555\u20130142", "+16025550142"),
    ],
)
def test_a_number_is_found_as_it_may_be_written_and_by_each_part_of_it(
    region: str, written: str, number: str, with_index: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "_WORTH_AN_INDEX", 1)
    bucket = a_bucket()
    store(bucket, date(2026, 11, 3), ["+12125550000", "anonymous"], region)
    store(bucket, date(2026, 11, 4), [number, "+12125550000"], region)
    if with_index:
        assert list(index_months(bucket, FIRST, LAST)) == [("2026-11", 2)]
    found = search_of(bucket, region).find(Query(first=FIRST, last=LAST, number=written))
    assert found["ani"].to_pylist() == [number]


def test_pages_of_what_is_found_are_the_whole_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "_FIRST_DATES", 1)
    bucket = a_bucket()
    for day, count in ((1, 5), (2, 0), (3, 1), (4, 7), (5, 2)):
        store(bucket, date(2026, 11, day), ["+16025550142"] * count, "US")
    search, query = search_of(bucket), Query(first=FIRST, last=LAST)
    whole = search.find(query, limit=100)
    assert whole.num_rows == 15
    for size in (1, 2, 4, 7, 15):
        pages = [search.find(query, limit=size, offset=offset) for offset in range(0, 16 + size, size)]
        assert pa.concat_tables(pages).to_pylist() == whole.to_pylist()
        assert max(page.num_rows for page in pages) == size


class _Base:
    """A database whose cursors do as a test says."""

    def __init__(self, *cursors: Any) -> None:
        self._cursors = iter(cursors)

    def cursor(self) -> Any:
        return next(self._cursors)


def test_a_search_that_cannot_be_finished_ends_in_a_sentence_that_does_not_quote_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cursor = Mock()
    cursor.sql.side_effect = duckdb.OutOfMemoryException("could not allocate for '6025550142'")
    monkeypatch.setattr(duckdb, "connect", lambda *_, **__: _Base(cursor))
    bucket = a_bucket()
    store(bucket, FIRST, ["+16025550142"], "US")
    with pytest.raises(StorageUnavailable, match="search fewer dates at a time") as caught:
        search_of(bucket).find(Query(first=FIRST, last=LAST, number="6025550142"))
    assert "6025550142" not in str(caught.value)


def test_a_long_search_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    real, is_slow, may_end = duckdb.connect(":memory:"), threading.Event(), threading.Event()
    slow = Mock()

    def wait(*_: Any, **__: Any) -> Any:
        is_slow.set()
        assert may_end.wait(30)
        raise duckdb.InterruptException("ended")

    slow.sql.side_effect = wait
    monkeypatch.setattr(duckdb, "connect", lambda *_, **__: _Base(slow, real.cursor()))
    bucket = a_bucket()
    store(bucket, FIRST, ["+16025550142"], "US")
    search, ended = search_of(bucket), []

    def search_slowly() -> None:
        with pytest.raises(StorageUnavailable):
            search.find(Query(first=FIRST, last=LAST))
        ended.append(True)

    def search_quickly() -> None:
        ended.append(search.find(Query(first=FIRST, last=LAST)).num_rows)

    threads = [threading.Thread(target=search_slowly), threading.Thread(target=search_quickly)]
    threads[0].start()
    assert is_slow.wait(30)
    threads[1].start()
    threads[1].join(10)
    assert ended == [1]
    may_end.set()
    threads[0].join(30)
    assert ended == [1, True]

"""A search of the table `calls` with an index of the months and without: numbers as people write them, and pages."""

from __future__ import annotations

import io
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from typing import Any
from unittest.mock import Mock

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipelines.archive.errors import StorageUnavailable
from pipelines.archive.keys import calls_index_key, calls_key
from pipelines.browser.people import Person, Role, Team
from pipelines.settings import StorageSettings
from pipelines.steps.calls import search as search_module
from pipelines.steps.calls.month_index import index_months
from pipelines.steps.calls.numbers import to_e164
from pipelines.steps.calls.search import CallSearch, Parties, Query
from pipelines.steps.calls.table import CALLS_FILE_SCHEMA, encode
from tests.memory_bucket import a_bucket

FIRST, LAST = date(2026, 11, 1), date(2026, 11, 30)


def store(bucket: Mock, day: date, numbers: Sequence[str], region: str) -> None:
    rows = [
        {"account_id": "1", "uii": f"{day}-{index}", "ani": number, "ani_e164": to_e164(number, region)}
        for index, number in enumerate(numbers)
    ]
    bucket.put(calls_key("", day), encode(pa.Table.from_pylist(rows, CALLS_FILE_SCHEMA)))


def search_of(bucket: Mock, region: str = "US") -> CallSearch:
    return CallSearch(bucket, StorageSettings(archive_bucket="archive", archive_phone_region=region))


@pytest.fixture
def bucket() -> Mock:
    return a_bucket()


@pytest.fixture
def found_in(bucket: Mock) -> CallSearch:
    """A search in the bucket."""
    return search_of(bucket)


def test_the_next_page_does_not_read_again_which_dates_without_an_index_are_whole(
    bucket: Mock, found_in: CallSearch
) -> None:
    query = Query(first=FIRST, last=LAST)
    for day in (FIRST, LAST):
        store(bucket, day, ["6025550142"], "US")
    files = found_in.files(query)
    assert len(found_in.not_searched(query, files)) == 28
    bucket.read_range.reset_mock()
    assert len(found_in.not_searched(query, files)) == 28
    bucket.read_range.assert_not_called()


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
        ("US", "0142", "+16025550142"),
        ("US", "014", "+16025550142"),
        ("US", "50142", "+16025550142"),
        ("US", "020 7946", "+442079460018"),
        ("DE", "030 555", "+4930555012345"),
        ("DE", "0123", "+4930555012345"),
        ("US", "0034 91", "+34912345678"),
        ("ES", "0039 06", "+390612345678"),
        ("IT", "0033 142", "+33142345678"),
        ("US", "٦٠٢ ٥٥٥ ٠١٤٢", "+16025550142"),
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


_DIGITS = st.text("0123456789", min_size=1, max_size=15)
_AS_SENT = _DIGITS | st.from_regex(r"\+?1?602555[0-9]{4}", fullmatch=True) | st.text("05()+ -x", max_size=12)


@given(numbers=st.lists(_AS_SENT, min_size=1, max_size=6), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_index_hides_no_number_whatever_part_of_it_is_looked_for(
    found_in: CallSearch, bucket: Mock, numbers: list[str], data: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "_WORTH_AN_INDEX", 1)
    last = date(2026, 11, len(numbers))
    for day, number in enumerate(numbers, start=1):
        store(bucket, date(2026, 11, day), [number, "anonymous"], "US")
    chosen = "".join(character for character in data.draw(st.sampled_from(numbers)) if character.isdigit())
    start = data.draw(st.integers(0, len(chosen)))
    query = Query(first=FIRST, last=last, number=chosen[start : data.draw(st.integers(start, len(chosen)))])
    without = found_in.find(query)
    assert list(index_months(bucket, FIRST, last)) == [("2026-11", len(numbers))]
    assert found_in.find(query).equals(without)
    bucket.put(calls_index_key("", "2026-11"), b"")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"number": "602-555-0117"}, [17]),
        ({"number": "550117"}, [17]),
        ({"uii": "2026-11-17-0"}, [17]),
        ({"recordings": ("1/17.WAV",)}, [17]),
        ({"recordings": ("1/17.WAV", "1/03.WAV", "1/99.WAV")}, [17, 3]),
        ({"agent": "1017"}, [17]),
        ({"agent": "AGENT17@example.com"}, [17]),
        ({"agent": "Nr. 17"}, [17]),
        ({"agent": "İbrahim"}, [5]),
        ({"agent": "ibrahim"}, [5]),
        ({"agent": "017"}, []),
        ({"number": "50117"}, [17]),
        ({"number": "0117"}, [17]),
        ({"queue": "4017"}, [17]),
        ({"queue": "queue 17"}, [17]),
        ({"account": "A17"}, [17]),
        ({"within": Parties(agents=("1017",), queues=("4003",), accounts=("A9", "A99"))}, [17, 9, 3]),
        ({"within": Parties(agents=("1",))}, []),
        ({"within": Parties()}, []),
        ({"agent": "Nr. 17", "digits_in_names": False}, []),
    ],
)
def test_a_search_over_many_dates_reads_those_that_the_index_names(asked: dict[str, Any], expected: list[int]) -> None:
    bucket = a_bucket()
    for day in range(1, 31):
        name = "İbrahim" if day == 5 else f"Agent Nr. {day}"
        row = {"account_id": f"A{day}", "uii": f"2026-11-{day:02}-0", "ani_e164": f"+160255501{day:02}"}
        row |= {"queue_id": f"{4000 + day}", "queue_name": f"Queue {day}"}
        row |= {"agent_id": f"10{day:02}", "agent_login": f"agent{day}@example.com", "agent_name": name}
        row |= {"recording_id": f"1/{day:02}.WAV"}
        bucket.put(calls_key("", date(2026, 11, day)), encode(pa.Table.from_pylist([row], CALLS_FILE_SCHEMA)))
    list(index_months(bucket, FIRST, LAST))
    bucket.get_bytes.reset_mock()
    found = search_of(bucket).find(Query(first=FIRST, last=LAST, **asked))
    assert [day.day for day in found["date"].to_pylist()] == expected
    read = Counter(call.args[0] for call in bucket.get_bytes.call_args_list if "/_index/" not in call.args[0])
    assert read == Counter(calls_key("", date(2026, 11, day)) for day in expected)  # in any order: many at once


@pytest.mark.parametrize(("region", "found"), [("US", ["+16025550142"]), ("DE", ["+16025551423", "+16025550142"])])
def test_few_digits_after_a_zero_are_a_part_of_a_number_where_no_zero_is_dialled(
    found_in: CallSearch, bucket: Mock, region: str, found: list[str]
) -> None:
    store(bucket, FIRST, ["+16025551423", "+16025550142"], "US")
    assert search_of(bucket, region).find(Query(first=FIRST, last=FIRST, number="0142"))["ani"].to_pylist() == found


@pytest.mark.parametrize("region", ["US", "DE"])
def test_zeros_alone_are_digits_of_a_number(found_in: CallSearch, bucket: Mock, region: str) -> None:
    store(bucket, FIRST, ["+16025550000", "+16025550142"], "US")
    found = search_of(bucket, region).find(Query(first=FIRST, last=FIRST, number="0000"))
    assert found["ani"].to_pylist() == ["+16025550000"]


def test_a_number_of_many_digits_is_indexed_in_good_time_and_found_by_any_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search_module, "_WORTH_AN_INDEX", 1)
    bucket, digits = a_bucket(), "".join(random.Random(4).choices("0123456789", k=100_000))
    store(bucket, date(2026, 11, 3), [f"+1602555{line:04}" for line in range(9_000)], "US")
    store(bucket, date(2026, 11, 4), [digits, "+16025550142"], "US")
    began = time.process_time()
    assert list(index_months(bucket, FIRST, LAST)) == [("2026-11", 2)]
    assert time.process_time() - began < 5
    for part in (digits[50_000:50_012], digits[-4:]):
        found = search_of(bucket).find(Query(first=FIRST, last=LAST, number=part))
        assert digits in found["ani"].to_pylist()


@pytest.mark.parametrize(
    ("name", "keys", "number"),
    [
        ("ringcx-archive/covers", ["n:+16025550142"], "550142"),
        ("ringcx-archive/covers/2", ["n:160255", "n:255501", "n:550142", "n:555014", "n:602555"], "0142"),
    ],
)
def test_an_index_of_an_older_version_is_not_believed(
    name: str, keys: list[str], number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "_WORTH_AN_INDEX", 1)
    bucket = a_bucket()
    store(bucket, date(2026, 11, 3), ["+16025550142"], "US")
    key, query = calls_index_key("", "2026-11"), Query(first=FIRST, last=LAST, number=number)
    etag = dict(bucket.list_keys(calls_key("", date(2026, 11, 3))))[calls_key("", date(2026, 11, 3))].etag
    covers = {name.encode(): json.dumps({"2026-11-03": etag}).encode()}
    old = pa.table({"key": keys, "days": pa.array([1 << 2] * len(keys), pa.uint32())}).replace_schema_metadata(covers)
    pq.write_table(old, out := io.BytesIO())
    bucket.put(key, out.getvalue())
    assert search_of(bucket).find(query).num_rows == 1
    assert list(index_months(bucket, FIRST, LAST)) == [("2026-11", 1)]
    assert search_of(bucket).find(query).num_rows == 1


_IDS = st.sampled_from([None, "", "7", "70", "07", "7; 8", "8; 7", "8", "7;8", "a; 7", "7 "])
_TEAM = st.lists(st.sampled_from(["", "7", "8", "a", "7; 8"]), max_size=2).map(tuple)


@given(
    parties=st.lists(st.tuples(_IDS, _IDS, st.sampled_from(["7", "8", "70"])), min_size=1, max_size=12),
    teams=st.lists(st.builds(Team, agents=_TEAM, queues=_TEAM, accounts=_TEAM), max_size=2).map(tuple),
    roles=st.sets(st.sampled_from(Role)).map(frozenset),
)
@example(parties=[("", None, "7")], teams=(Team(agents=("",)),), roles=frozenset({Role.listen_own_team}))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_search_finds_the_calls_that_a_person_may_see_and_no_others(
    found_in: CallSearch,
    bucket: Mock,
    parties: list[tuple[str | None, str | None, str]],
    teams: tuple[Team, ...],
    roles: frozenset[Role],
) -> None:
    rows = [
        {"account_id": account, "uii": str(index), "agent_id": agent, "queue_id": queue}
        for index, (agent, queue, account) in enumerate(parties)
    ]
    person = Person("m_weber", roles, teams)
    bucket.put(calls_key("", FIRST), encode(pa.Table.from_pylist(rows, CALLS_FILE_SCHEMA)))
    found = found_in.find(Query(first=FIRST, last=FIRST, within=person.within))
    assert found["uii"].to_pylist() == [row["uii"] for row in rows if person.may_see(row)]


@pytest.mark.parametrize(("text", "found"), [("grace", 2), ("2001", 1), ("41", 0), ("grace 41", 0), ("٤", 0)])
def test_digits_are_not_looked_for_in_names_where_the_query_says_so(
    found_in: CallSearch, bucket: Mock, text: str, found: int
) -> None:
    names = ["Grace 41", "Grace ٤"]
    rows = [
        {"account_id": "1", "uii": name, "agent_id": f"200{index}", "queue_id": f"200{index}"}
        | {"agent_name": name, "queue_name": name}
        for index, name in enumerate(names)
    ]
    bucket.put(calls_key("", FIRST), encode(pa.Table.from_pylist(rows, CALLS_FILE_SCHEMA)))
    for asked in ({"agent": text}, {"queue": text}):
        query = Query(first=FIRST, last=FIRST, digits_in_names=False, **asked)
        assert found_in.find(query).num_rows == found
        assert found_in.find(Query(first=FIRST, last=FIRST, **asked)).num_rows > 0


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
    for asked in (query, replace(query, uii="no-such")):
        columns = ["date", "uii", "warnings"]
        assert search.find(asked, columns=columns).equals(search.find(asked).select(columns))


_PARTY = st.sampled_from([None, "", "7", "A7", "a7", "7; 8", "İ", "i̇"])


@given(
    parties=st.lists(st.tuples(_PARTY, _PARTY, st.sampled_from(["7", "A7", "8"])), min_size=1, max_size=6),
    asked=st.fixed_dictionaries(
        {},
        optional={
            "agent": st.sampled_from(["7", "a7", "İ", "8"]),
            "queue": st.sampled_from(["7", "a7", "İ", "8"]),
            "account": st.sampled_from(["7", "A7", "a7"]),
            "within": st.none() | st.builds(Parties, agents=_TEAM, queues=_TEAM, accounts=_TEAM),
            "digits_in_names": st.booleans(),
        },
    ),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_index_hides_no_call_of_an_agent_a_queue_an_account_or_a_team(
    found_in: CallSearch,
    bucket: Mock,
    parties: list[tuple[str | None, str | None, str]],
    asked: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search_module, "_WORTH_AN_INDEX", 1)
    last = date(2026, 11, len(parties))
    for day, (agent, queue, account) in enumerate(parties, start=1):
        row = {"account_id": account, "uii": str(day), "agent_id": agent, "agent_login": queue, "agent_name": agent}
        row |= {"queue_id": queue, "queue_name": agent}
        bucket.put(calls_key("", date(2026, 11, day)), encode(pa.Table.from_pylist([row], CALLS_FILE_SCHEMA)))
    query = Query(first=FIRST, last=last, **asked)
    without = found_in.find(query)
    assert list(index_months(bucket, FIRST, last)) == [("2026-11", len(parties))]
    assert found_in.find(query).equals(without)
    bucket.put(calls_index_key("", "2026-11"), b"")


def test_a_search_that_is_given_up_reads_no_further_date() -> None:
    bucket = a_bucket()
    for day in range(1, 31):
        store(bucket, date(2026, 11, day), ["+16025550142"], "US")
    stops = iter([False, True])
    bucket.get_bytes.reset_mock()
    with pytest.raises(StorageUnavailable, match="given up"):
        search_of(bucket).find(Query(first=FIRST, last=LAST, notes="none"), stop=lambda: next(stops))
    assert 0 < bucket.get_bytes.call_count < 30


def test_many_searches_at_once_hold_two_batches_of_dates_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, now, most, lock = a_bucket(), [0], [0], threading.Lock()
    store(bucket, FIRST, ["+16025550142"], "US")
    search = search_of(bucket)
    real = search._matching

    def counted(*given: Any, **named: Any) -> Any:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        try:
            return real(*given, **named)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(search, "_matching", counted)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: search.find(Query(first=FIRST, last=LAST)).num_rows, range(8)))
    assert (found, most) == ([1] * 8, [2])


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

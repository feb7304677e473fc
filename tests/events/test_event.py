"""What counts as an event, in whatever form it comes."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.events.event import MAX_FIELDS, NotAnEvent, call_start, field, read_event
from pipelines.events.files import frame, read_frames
from tests.events.receivers import event

EASTERN = ZoneInfo("US/Eastern")
TOLD = {name: value for name, value in event(1).items() if value is not None}
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


def test_json_form_body_and_query_string_say_the_same() -> None:
    form = urlencode(TOLD).encode()
    assert read_event(b"", json.dumps(event(1)).encode()) == TOLD
    assert read_event(b"", form) == TOLD
    assert read_event(form, b"") == TOLD
    assert read_event(b"key=of-a-proxy", form) == {"key": "of-a-proxy", **TOLD}


@given(st.dictionaries(NAMES, TEXT, max_size=20))
def test_no_field_is_lost_in_any_form(extra: dict[str, str]) -> None:
    wanted = {**extra, "call_id": "1", "account_id": "2", "recording_url": ""}
    assert read_event(b"", json.dumps(wanted).encode()) == wanted
    assert read_event(b"", json.dumps(wanted, ensure_ascii=False).encode()) == wanted
    assert read_event(urlencode(wanted).encode(), b"") == wanted


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


@given(
    st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=300)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(["call_id", "account_id", "CallId", "x"]), JSON).map(
        lambda value: json.dumps(value).encode()
    ),
)
def test_any_bytes_are_no_event_or_one_that_can_be_kept(query: bytes, body: bytes) -> None:
    try:
        fields = read_event(query, body)
    except NotAnEvent:
        return
    assert field(fields, "call_id")
    ((kept,), _) = read_frames(frame({"fields": fields}))
    assert kept["fields"] == fields
    json.dumps(fields, ensure_ascii=False).encode()  # a column of Parquet takes nothing else


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "has no fields"),
        (b"{", "not one flat JSON object"),
        (b"[{}]", "not one flat JSON object"),
        (b"[" * 60000, "not one flat JSON object"),
        (b'{"a":' * 10000 + b"1" + b"}" * 10000, "not one flat JSON object"),
        (b"<html>please sign in</html>", "neither JSON nor"),
        (b"\xff\xfe\x00", "neither JSON nor"),
        (b'{"account_id": "1"}', "call_id is missing"),
        (b'{"call_id": "1", "account_id": "  "}', "account_id is missing"),
        (b"&".join(b"f%d=1" % n for n in range(MAX_FIELDS + 1)), "too many fields"),
        (json.dumps({f"f{n}": 1 for n in range(MAX_FIELDS + 1)}).encode(), "too many fields"),
        (json.dumps({"event_type": "LOGIN", "account_id": "1", "agent_id": "2"}).encode(), "call_id is missing"),
        (json.dumps({"event_type": "ENGAGED", "account_id": "1", "call_id": "2"}).encode(), "an agent's event"),
    ],
)
def test_what_is_no_event_is_told_why(body: bytes, sentence: str) -> None:
    with pytest.raises(NotAnEvent, match=sentence):
        read_event(b"", body)


def test_values_keep_their_digits_and_repeated_names_their_values() -> None:
    body = b'{"call_id": 202006302136370132130000036446, "account_id": 15300002, "n": 1.50, "b": true, "o": {"a": [1]}'
    body += b', "twice": "a", "twice": "b", "twice": null, "half": "\\ud800", "nothing": null}'
    assert read_event(b"", body) == {
        "call_id": "202006302136370132130000036446",
        "account_id": "15300002",
        "n": "1.50",
        "b": "true",
        "o": '{"a":["1"]}',
        "twice": "a",
        "twice_2": "b",
        "half": "?",
    }
    form = read_event(b"call_id=1&account_id=2&twice=a&twice=b", b"")
    assert (form["twice"], form["twice_2"]) == ("a", "b")


def test_a_body_nested_to_any_depth_is_an_event_or_is_none() -> None:
    for depth in range(600, 1000):
        with suppress(NotAnEvent):
            read_event(b"", b'{"call_id": "1", "account_id": "2", "x": ' + b"[" * depth + b"]" * depth + b"}")


def test_bytes_that_are_not_utf_8_cost_no_event() -> None:
    assert read_event(b"", b'{"call_id": "1", "account_id": "2", "x": "caf\xe9"}')["x"] == "café"
    assert read_event(b"call_id=1&account_id=2&x=caf%E9", b"")["x"] == "café"


def test_names_are_known_however_they_are_written() -> None:
    fields = read_event(b"", b"CallID=77&ACCOUNT-ID=8")
    assert (field(fields, "call_id"), field(fields, "account_id")) == ("77", "8")


def test_a_link_that_was_not_encoded_is_put_together_again() -> None:
    link = TOLD["recording_url"]
    plain = f"call_id=1&account_id=2&recording_url={link}&call_state=ANSWERED"
    assert read_event(plain.encode(), b"")["recording_url"] == link


@pytest.mark.parametrize(
    ("start_sent", "uii", "started_at", "disagrees"),
    [
        ("2020-06-30 21:36:37", "20200630213637013213", datetime(2020, 7, 1, 1, 36, 37, tzinfo=UTC), False),
        ("2020-06-30 18:36:37", "20200630213637013213", datetime(2020, 7, 1, 1, 36, 37, tzinfo=UTC), True),
        ("2020-07-01T01:36:37Z", "20200630213637013213", datetime(2020, 7, 1, 1, 36, 37, tzinfo=UTC), False),
        ("2020-06-30 21:36:37", "no-time", datetime(2020, 7, 1, 1, 36, 37, tzinfo=UTC), False),
        ("", "20200630213637013213", datetime(2020, 7, 1, 1, 36, 37, tzinfo=UTC), False),
        ("soon", "no-time", None, False),
    ],
)
def test_the_start_is_the_calls_unless_its_uii_contradicts_it(
    start_sent: str, uii: str, started_at: datetime | None, disagrees: bool
) -> None:
    assert call_start({"call_start": start_sent, "call_id": uii}, EASTERN) == (started_at, disagrees)

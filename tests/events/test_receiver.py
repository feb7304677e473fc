"""What the receiver answers, and what is durable when it does."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import statistics
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.cli import receiver as cli_receiver
from pipelines.cli.main import main
from pipelines.events import app as receiver_app
from pipelines.events.app import Receiver, is_admitted
from pipelines.events.files import EventsUnavailable, Line, LocalEvents, read_frames
from pipelines.serving import RateLimit
from pipelines.settings import ReceiverSettings, SettingsError, load
from tests.events.conftest import stored_calls, stored_fields
from tests.events.receivers import AUTHORIZATION, event

GOOD = {"Authorization": AUTHORIZATION}
Make = Callable[..., Any]


def malformed(events_folder: Path) -> list[dict[str, Any]]:
    return [
        dict(frame)
        for file in sorted(events_folder.glob("malformed/date=*/*.events"))
        for frame in read_frames(file.read_bytes())[0]
    ]


@pytest.mark.parametrize("path", ["/events", "/"])
def test_an_event_in_each_form_is_stored_when_it_is_answered(receiver: Make, events_folder: Path, path: str) -> None:
    client = receiver()
    sent = {name: value or "" for name, value in event(7).items()}
    for number, send in enumerate(
        (
            lambda: client.post(path, json=event(7), headers=GOOD),
            lambda: client.post(path, params=sent, headers=GOOD),
            lambda: client.get(path, params=sent, headers=GOOD),
            lambda: client.post(path, data=sent, headers=GOOD),
            lambda: client.post(path, content=json.dumps(event(7)), headers=GOOD | {"Content-Type": "text/plain"}),
        ),
        start=1,
    ):
        assert send().status_code == 200
        assert stored_calls(LocalEvents(events_folder)) == [event(7)["call_id"]] * number
    assert all(
        fields.items() >= {k: v for k, v in sent.items() if v}.items()
        for fields in stored_fields(LocalEvents(events_folder))
    )


def test_no_address_is_redirected_whatever_host_is_named(receiver: Make, events_folder: Path) -> None:
    client = receiver()
    headers = {**GOOD, "Host": "elsewhere.example"}
    answers = {
        path: client.post(path, json=event(7), headers=headers, follow_redirects=False)
        for path in ("/events/", "/events", "/health/", "/events/x")
    }
    assert [answer.status_code for answer in answers.values()] == [200, 200, 404, 404]
    assert not [
        answer for answer in answers.values() if "location" in answer.headers or "elsewhere.example" in answer.text
    ]
    assert client.post("/events/", json=event(7), follow_redirects=False).status_code == 401
    assert client.delete("/events", headers=GOOD).status_code == 405
    assert client.head("/events", params=event(8), headers=GOOD).status_code == 405
    assert answers["/events/x"].text == "Send events to /events with GET, POST or PUT.\n"
    assert client.get("/health").json()["events"] == {"elsewhere": 4, "refused": 1, "stored": 2}
    assert len(stored_calls(LocalEvents(events_folder))) == 2


def test_an_event_is_filed_under_the_day_of_its_call_in_the_archives_zone(receiver: Make, events_folder: Path) -> None:
    client = receiver()
    client.post("/events", json=event(1), headers=GOOD)  # 21:36 in New York is the next day in UTC
    client.post("/events", json=event(2, call_id="x1", call_start="2099-01-01 00:00:00"), headers=GOOD)
    client.post("/events", json=event(3, call_id="x2", call_start="1999-01-01 00:00:00"), headers=GOOD)
    client.post("/events", json=event(4, call_id="x3", call_start=""), headers=GOOD)
    days = LocalEvents(events_folder).days()
    assert days[0].isoformat() == "2020-07-01"
    assert len(days) in {2, 3}  # the others under the day on which they came, which may end meanwhile


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Basic"},
        {"Authorization": AUTHORIZATION[:-1]},
        {"Authorization": AUTHORIZATION + "A"},
        {"Authorization": AUTHORIZATION.lower()},
        {"Authorization": "x" * 8000},
        {"Authorization": "\xff\xfe"},
        {"X-Authorization": AUTHORIZATION},
    ],
)
def test_nothing_is_read_or_kept_without_the_right_header(
    receiver: Make, events_folder: Path, header: dict[str, str]
) -> None:
    client = receiver()
    raw = [(name.encode(), value.encode("latin-1")) for name, value in header.items()]
    answer = client.post("/events", json=event(1), headers=raw)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="events"')
    assert not list(events_folder.glob("**/*.events"))


def test_a_header_that_comes_twice_is_not_believed(receiver: Make) -> None:
    twice = [("Authorization", "x"), ("Authorization", AUTHORIZATION)]
    assert receiver().post("/events", json=event(1), headers=twice).status_code == 401


def test_both_secrets_are_good_while_one_replaces_the_other(receiver: Make) -> None:
    client = receiver(name="X-Events-Key", accepted=("old", "new"))
    for value, status in (("old", 200), ("new", 200), ("older", 401)):
        assert client.post("/events", json=event(1), headers={"x-events-key": value}).status_code == status


def test_a_wrong_secret_takes_no_longer_the_more_of_it_is_right() -> None:
    good = AUTHORIZATION.encode()
    accepted = [sha256(good).digest()]
    cases = {
        "none": [],
        "first letter wrong": [(b"authorization", b"\0" + good[1:])],
        "last letter wrong": [(b"authorization", good[:-1] + b"\0")],
        "short": [(b"authorization", good[:5])],
    }
    spent: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(3000):
        for name, headers in cases.items():
            begun = time.perf_counter()
            assert not is_admitted(headers, "Authorization", accepted)
            spent[name].append(time.perf_counter() - begun)
    least = {name: statistics.quantiles(times, n=20)[1] for name, times in spent.items()}
    assert max(least.values()) < 2 * min(least.values()) + 1e-6, least


@pytest.mark.parametrize(
    "send",
    [
        lambda client: client.post("/events", content=b"x" * 3000, headers=GOOD),
        lambda client: client.post("/events", content=iter([b"x" * 900] * 3), headers=GOOD),  # no length declared
        lambda client: client.get("/events", params={"x": "y" * 3000}, headers=GOOD),
    ],
)
def test_what_is_too_large_is_refused_and_not_kept(
    receiver: Make, events_folder: Path, send: Callable[[Any], Any]
) -> None:
    assert send(receiver(max_bytes=2048)).status_code == 413
    assert not list(events_folder.glob("**/*.events"))


def test_too_many_events_a_second_are_told_when_to_come_back(receiver: Make, events_folder: Path) -> None:
    client = receiver(rate=5)
    answers = [client.post("/events", json=event(number), headers=GOOD) for number in range(40)]
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert {answer.headers["retry-after"] for answer in answers if answer.status_code == 429} == {"1"}
    assert len(stored_calls(LocalEvents(events_folder))) == statuses.count(200)


def test_senders_without_the_secret_do_not_use_up_the_others_rate(receiver: Make) -> None:
    client = receiver(rate=5)
    assert {client.post("/events", json={}).status_code for _ in range(40)} == {401, 429}
    assert client.post("/events", json=event(1), headers=GOOD).status_code == 200


def test_a_rate_limit_gives_its_rate_in_the_long_run() -> None:
    now = [0.0]
    rate = RateLimit(600, 20, lambda: now[0])
    taken = 0
    for _ in range(1000):
        taken += rate.take("sender") == 0
        now[0] += 0.01
    assert 100 + 19 <= taken <= 100 + 20


def test_what_is_no_event_is_refused_with_a_sentence_and_kept_aside(receiver: Make, events_folder: Path) -> None:
    client = receiver()
    answer = client.post("/events?secret=5105550111", content=b"\xff" * 9000, headers=GOOD)
    assert answer.status_code == 400
    assert answer.text == "The body is neither JSON nor a URL-encoded form.\n"
    (kept,) = malformed(events_folder)
    assert (kept["why"], kept["bytes"], kept["query"]) == (answer.text.strip(), 9017, "secret=5105550111")
    assert kept["body"] == "\xff" * receiver_app.KEPT_OF_MALFORMED
    assert LocalEvents(events_folder).days() == []


def test_malformed_requests_do_not_fill_the_disk(
    receiver: Make, events_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_app, "MALFORMED_BYTES_A_DAY", 2000)
    client = receiver()
    assert {client.post("/events", content=b"x" * 500, headers=GOOD).status_code for _ in range(30)} == {400}
    assert len(malformed(events_folder)) < 10
    assert client.get("/health").json()["events"] == {
        "malformed": 30,
        "malformed_not_kept": 30 - len(malformed(events_folder)),
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200),
    st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126, exclude_characters="#?"), max_size=50),
)
def test_no_body_and_no_query_is_a_defect(receiver: Make, body: bytes, query: str) -> None:
    client = receiver()
    answer = client.post(f"/events?{query}", content=body, headers=GOOD)
    assert answer.status_code in {200, 400}
    assert answer.status_code == 200 or answer.text.endswith(".\n")


class FailingKeeper(LocalEvents):
    """A disk that fails for as long as it is told to."""

    failing = False
    slow_s = 0.0
    batches = probes = written_probes = 0

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.probe_may_end = threading.Event()
        self.probe_may_end.set()

    def write(self, lines: Iterable[Line]) -> None:
        self.batches += 1
        time.sleep(self.slow_s)
        self._need()
        super().write(lines)

    def probe(self, *, write: bool) -> None:
        self.probes += 1
        self.written_probes += write
        self.probe_may_end.wait(30)
        self._need()
        super().probe(write=write)

    def _need(self) -> None:
        if self.failing:
            raise EventsUnavailable("cannot write /events: No space left on device; check EVENTS_URL.")


def test_an_event_that_could_not_be_stored_is_not_acknowledged_and_health_says_so(
    receiver: Make, events_folder: Path
) -> None:
    keeper = FailingKeeper(events_folder)
    client = receiver(keeper=keeper)
    assert client.get("/health").json()["storage"] == "writable"
    keeper.failing = True
    answer = client.post("/events", json=event(1), headers=GOOD)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    health = client.get("/health")
    assert (health.status_code, health.json()["storage"]) == (503, "unavailable")
    keeper.failing = False
    assert client.get("/health").status_code == 503
    assert client.post("/events", json=event(2), headers=GOOD).status_code == 200
    assert client.get("/health").status_code == 200, "an event that was stored proves it at once"
    assert stored_calls(LocalEvents(events_folder)) == [event(2)["call_id"]]


def test_storage_that_works_again_is_shown_within_seconds_although_no_event_comes(
    receiver: Make, events_folder: Path
) -> None:
    keeper = FailingKeeper(events_folder)
    keeper.failing = True
    client = receiver(keeper=keeper)
    assert [client.get("/health").status_code for _ in range(20)] == [503] * 20
    assert keeper.probes == 1
    keeper.failing = False
    recovered = time.monotonic()
    while client.get("/health").status_code == 503:
        assert time.monotonic() < recovered + 5
        time.sleep(0.05)
    assert client.get("/metrics").status_code == 200
    assert (keeper.probes, keeper.written_probes) == (2, 1), "the storage that failed has to take a file again"


def test_a_listing_under_way_does_not_hide_that_an_event_could_not_be_stored(
    receiver: Make, events_folder: Path
) -> None:
    keeper = FailingKeeper(events_folder)
    keeper.probe_may_end.clear()
    client = receiver(keeper=keeper)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.get, "/health")
        while not keeper.probes:
            time.sleep(0.01)
        keeper.failing = True
        assert client.post("/events", json=event(1), headers=GOOD).status_code == 503
        keeper.failing = False  # a bucket that can be listed, but takes no event
        keeper.probe_may_end.set()
        assert asked.result().status_code == 503


def test_trouble_that_has_passed_is_logged_once_although_no_event_comes(
    events_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cli_receiver, "_LOG_EVERY", 0.1)
    for name in ("_FAILS_SECONDS", "_WORKS_SECONDS"):
        monkeypatch.setattr(receiver_app, name, 0.0)
    keeper = FailingKeeper(events_folder)

    async def fail_and_recover(seconds: float) -> None:
        caplog.clear()
        keeper.failing = True
        await made.probe()
        await asyncio.sleep(seconds)
        keeper.failing = False
        await made.probe()
        await asyncio.sleep(0.3)

    async def log_for_a_while() -> None:
        logging_task = asyncio.create_task(cli_receiver._log_counts(made))
        await fail_and_recover(0)
        assert times_logged() == 1
        await fail_and_recover(0.5)
        assert times_logged() > 1, "while it lasts, in every minute"
        logging_task.cancel()

    def times_logged() -> int:
        return sum("No space left on device" in message for message in caplog.messages)

    made = Receiver(keeper, open_to_anyone(events_folder))
    asyncio.run(log_for_a_while())


def test_an_event_that_still_waits_when_the_process_must_end_is_refused(events_folder: Path) -> None:
    keeper = FailingKeeper(events_folder)
    keeper.slow_s = 1.0

    async def end_while_it_waits() -> int:
        app = Receiver(keeper, open_to_anyone(events_folder)).app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://receiver") as client:
            waiting = asyncio.create_task(client.post("/events", json=event(1)))
            await asyncio.sleep(0.3)
            waiting.cancel()  # as uvicorn does when its grace is over
            return (await waiting).status_code

    assert asyncio.run(end_while_it_waits()) == 503


def open_to_anyone(events_folder: Path) -> ReceiverSettings:
    return ReceiverSettings.model_validate({"events_url": str(events_folder), "events_allow_anyone": True})


def test_whoever_asks_while_the_storage_hangs_gets_an_answer_and_delays_no_event(
    receiver: Make, events_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_app, "_HANGS_SECONDS", 0.2)
    monkeypatch.setattr(receiver_app, "_FAILS_SECONDS", 0.0)
    keeper = FailingKeeper(events_folder)
    keeper.probe_may_end.clear()
    client = receiver(keeper=keeper)
    with ThreadPoolExecutor(60) as pool:
        assert {answer.status_code for answer in pool.map(client.get, ["/health"] * 60)} == {503}
        monkeypatch.setattr(receiver_app, "_HANGS_SECONDS", 60.0)
        asked = [pool.submit(client.get, path) for path in ["/health", "/metrics"] * 30]
        assert client.post("/events", json=event(1), headers=GOOD).status_code == 200
        assert client.get("/health").status_code == 200, "the event shows that storage works"
        keeper.probe_may_end.set()
        assert {task.result().status_code for task in asked} == {200}
    assert keeper.probes == 1


def test_many_requests_share_one_write(receiver: Make, events_folder: Path) -> None:
    keeper = FailingKeeper(events_folder)
    client = receiver(keeper=keeper)
    keeper.slow_s = 0.1
    statuses: list[int] = []
    senders = [
        threading.Thread(
            target=lambda n=n: statuses.append(client.post("/events", json=event(n), headers=GOOD).status_code)
        )
        for n in range(30)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert statuses == [200] * 30
    assert len(set(stored_calls(LocalEvents(events_folder)))) == 30
    assert keeper.batches < 15


def test_requests_that_cannot_be_set_aside_cost_no_event(receiver: Make, events_folder: Path) -> None:
    keeper = FailingKeeper(events_folder)
    client = receiver(keeper=keeper)
    keeper.slow_s = 0.1
    events_folder.mkdir()
    (events_folder / "malformed").touch()
    with ThreadPoolExecutor(20) as pool:
        bodies = [json.dumps(event(1)) if number % 2 else "no event" for number in range(20)]
        answers = list(pool.map(lambda body: client.post("/events", content=body, headers=GOOD).status_code, bodies))
    assert answers == [503, 200] * 10


def test_health_and_log_show_no_field_and_no_secret(receiver: Make, caplog: pytest.LogCaptureFixture) -> None:
    client = receiver()
    with caplog.at_level(logging.DEBUG):
        client.post("/events", json=event(1), headers=GOOD)
        client.post("/events?ani=5105550111", content=b"{", headers=GOOD)
        client.post("/events", json=event(1), headers={"Authorization": "Basic c2VjcmV0"})
        shown = client.get("/health").text + "".join(
            record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "asyncio"))
        )
    for secret in ("5105550111", "rc.guest", "recordings.virtualacd", AUTHORIZATION[6:], "c2VjcmV0"):
        assert secret not in shown


def set_all(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_without_a_secret_it_does_not_start_unless_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, EVENTS_URL="events")
    with pytest.raises(SettingsError, match=r"no secret is set.*EVENTS_ALLOW_ANYONE=true"):
        load(ReceiverSettings)
    set_all(monkeypatch, EVENTS_ALLOW_ANYONE="true")
    assert load(ReceiverSettings).header_values == ()
    set_all(monkeypatch, EVENTS_HEADER_VALUE="s3cret")
    assert load(ReceiverSettings).header_values == ("s3cret",), "a secret that is set counts"


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"EVENTS_HEADER_VALUE": "s3cret"}, "EVENTS_URL is not set"),
        ({"EVENTS_URL": "ftp://x", "EVENTS_HEADER_VALUE": "s3cret"}, "EVENTS_URL must be a folder or s3://"),
        ({"EVENTS_URL": "e", "EVENTS_USERNAME": "s3cret"}, "EVENTS_USERNAME and EVENTS_PASSWORD belong together"),
        (
            {"EVENTS_URL": "e", "EVENTS_USERNAME": "u", "EVENTS_PASSWORD": "s3cret", "EVENTS_HEADER_VALUE": "x"},
            "keep one of them",
        ),
        (
            {"EVENTS_URL": "e", "EVENTS_USERNAME": "u", "EVENTS_PASSWORD": "x", "EVENTS_HEADER_VALUE_NEXT": "s3cret"},
            "keep one of them",
        ),
        (
            {"EVENTS_URL": "e", "EVENTS_HEADER_VALUE": "x", "EVENTS_PASSWORD_NEXT": "s3cret"},
            "EVENTS_USERNAME and EVENTS_PASSWORD belong together",
        ),
        ({"EVENTS_URL": "e", "EVENTS_HEADER_VALUE": "s3cret\n"}, "EVENTS_HEADER_VALUE must have no line break"),
        ({"EVENTS_URL": "e", "EVENTS_HEADER_VALUE": "s3c\nret"}, "EVENTS_HEADER_VALUE must have no line break"),
        ({"EVENTS_URL": "e", "EVENTS_HEADER_VALUE": "s3cret "}, "no line break or outer blank"),
        ({"EVENTS_URL": "e", "EVENTS_USERNAME": "u", "EVENTS_PASSWORD": "s3cret\n"}, "EVENTS_PASSWORD must have"),
        ({"EVENTS_URL": "e", "EVENTS_HEADER_NAME": "X Key", "EVENTS_HEADER_VALUE": "s3cret"}, "EVENTS_HEADER_NAME is"),
        (
            {"EVENTS_URL": "e", "EVENTS_HEADER_VALUE": "s3cret", "EVENTS_TIMEZONE": "Mars"},
            "EVENTS_TIMEZONE is not an IANA",
        ),
    ],
)
def test_wrong_settings_are_told_in_a_sentence_without_a_secret(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    set_all(monkeypatch, **variables)
    with pytest.raises(SettingsError, match=sentence) as caught:
        load(ReceiverSettings)
    assert "s3cret" not in str(caught.value)


def test_whoever_reads_health_again_and_again_causes_no_write_each_time(receiver: Make, events_folder: Path) -> None:
    keeper = FailingKeeper(events_folder)
    client = receiver(keeper=keeper)
    for _ in range(5):
        assert client.get("/health").status_code == client.get("/metrics").status_code == 200
    assert keeper.probes == 1


def test_more_connections_than_the_process_may_open_files_are_refused_before_it_starts(
    monkeypatch: pytest.MonkeyPatch, events_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_all(monkeypatch, EVENTS_URL=str(events_folder), EVENTS_HEADER_VALUE="s3cret", EVENTS_MAX_CONNECTIONS="2000")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert main(["receiver"]) == 2
    assert "EVENTS_MAX_CONNECTIONS=2000 needs 2100 open files" in capsys.readouterr().err


def test_user_and_password_are_the_basic_header_that_ringcx_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, EVENTS_URL="e", EVENTS_USERNAME="ü", EVENTS_PASSWORD="a:b", EVENTS_PASSWORD_NEXT="c")
    known = load(ReceiverSettings)
    assert known.header_values == tuple(f"Basic {b64encode(pair.encode()).decode()}" for pair in ("ü:a:b", "ü:c"))
    assert "a:b" not in repr(known)


def test_the_example_file_lists_every_setting_of_the_receiver() -> None:
    example = (Path(__file__).parents[2] / ".env.example").read_text()
    for name in ReceiverSettings.model_fields:
        assert f"\n{name.upper()}=" in example


def test_metrics_are_those_of_health_and_hold_no_field(receiver: Make) -> None:
    client = receiver()
    assert client.post("/events", json=event(7), headers=GOOD).status_code == 200
    assert client.post("/events", json=event(8)).status_code == 401
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert 'ringcx_archive_receiver_requests_total{result="stored"} 1.0\n' in answer.text
    assert 'ringcx_archive_receiver_requests_total{result="refused"} 1.0\n' in answer.text
    assert "ringcx_archive_receiver_storage_writable 1.0\n" in answer.text
    assert not [value for value in event(7).values() if value and len(value) > 4 and value in answer.text]

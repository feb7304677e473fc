"""Alerts: what people are told, once, through real HTTP; and what happens when nobody takes the message."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    DagsterInstance,
    DagsterRunStatus,
    Definitions,
    Failure,
    SkipReason,
    StaticPartitionsDefinition,
    asset,
    asset_check,
    build_sensor_context,
)
from pydantic import SecretStr

from pipelines.errors import ExpectedError
from pipelines.orchestration.alert_messages import QUIET, AlertProblem, AlertState, Destinations
from pipelines.orchestration.failures import PermanentFailure
from pipelines.orchestration.sensors.alerts import alerts
from pipelines.settings import AlertSettings, SettingsError, load
from pipelines.steps.check.result import Level
from sandbox.faults import Faults, Where
from tests.pipeline.conftest import MakeWorld
from tests.servers.scripted_http import Request, Response, ScriptedServer

START = datetime.now(UTC) - timedelta(days=5)  # runs are of today
TOKEN = "t0ken-in-the-address"
DAYS = ["2026-11-20", "2026-11-21", "2026-11-22"]


class Hook(ScriptedServer):
    """A web hook on this machine: keeps what is posted, answers with `status`."""

    def __init__(self) -> None:
        super().__init__(self._keep)
        self.status = 200
        self.posts: list[dict[str, Any]] = []

    def _keep(self, request: Request) -> Response:
        if self.status == 200:
            self.posts.append(json.loads(request.body))
        return Response(self.status)

    @property
    def address(self) -> str:
        return f"json://user:{TOKEN}@{self.host}/hooks/{TOKEN}?-key={TOKEN}"


@pytest.fixture
def hooks() -> Iterator[Callable[[], Hook]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Hook())


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Watch:
    """A small code location of failing things, and the sensor."""

    def __init__(self, instance: DagsterInstance) -> None:
        self.instance = instance
        self.clock = Clock()
        self.sensor = alerts(self.clock)
        self.broken: Exception | None = None
        self.counts = {"pending": 0, "missing": 0}
        self.severity = AssetCheckSeverity.ERROR
        partitions = StaticPartitionsDefinition(DAYS)

        @asset(partitions_def=partitions)
        def recordings() -> None:
            if self.broken is not None:
                raise self.broken

        @asset_check(asset=recordings, partitions_def=partitions)
        def every_recording_is_accounted_for() -> AssetCheckResult:
            bad = sum(self.counts.values())
            return AssetCheckResult(
                passed=not bad,
                severity=self.severity,
                description=f"{bad} recordings are not held.",
                metadata={**self.counts, "examples": "15300002/20261120-1.WAV", "to_do": "open the check of the date."},
            )

        self.defs = Definitions(assets=[recordings], asset_checks=[every_recording_is_accounted_for])

    def run(self, day: str, *, tags: dict[str, str] | None = None) -> None:
        job = self.defs.resolve_implicit_global_asset_job_def()
        job.execute_in_process(partition_key=day, instance=self.instance, raise_on_error=False, tags=tags)

    def tick(self) -> str:
        result = self.sensor(build_sensor_context(instance=self.instance))
        assert isinstance(result, SkipReason)
        return result.skip_message or ""


@pytest.fixture
def watch(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watch]:
    with (
        DagsterInstance.local_temp(str(tmp_path)) if hasattr(request, "param") else DagsterInstance.ephemeral() as world
    ):
        yield Watch(world)


on_disk = pytest.mark.parametrize("watch", ["on disk"], indirect=True)
"""With an instance as in production, where a run takes five times as long."""


@pytest.fixture
def hook(hooks: Callable[[], Hook], monkeypatch: pytest.MonkeyPatch) -> Hook:
    made = hooks()
    monkeypatch.setenv("ALERT_URLS", made.address)
    monkeypatch.setenv("ALERT_UI_URL", "http://archive.example.com:3000/")
    return made


def test_without_an_address_the_sensors_skip_with_a_sentence(watch: Watch) -> None:
    assert "ALERT_URLS is not set" in watch.tick()


@on_disk
def test_a_failing_check_is_one_message_that_says_date_what_how_many_what_to_do_and_where(
    watch: Watch, hook: Hook
) -> None:
    watch.counts = {"pending": 12, "missing": 2}
    watch.run("2026-11-20")
    assert watch.tick().startswith("1 message composed, 1 delivered")
    (post,) = hook.posts
    assert post["type"] == "failure"
    assert post["title"] == "RingCX Archive: check recordings/every_recording_is_accounted_for fails for 2026-11-20"
    assert "When: 2026-11-20" in post["message"]
    assert "14 recordings are not held. (missing 2, pending 12)" in post["message"]
    assert "To do: open the check of the date" in post["message"]
    assert "http://archive.example.com:3000/assets/recordings?view=checks&checkDetail=every_" in post["message"]
    assert re.search(r"http://archive\.example\.com:3000/runs/[0-9a-f-]{36}", post["message"])
    assert "not repeated for 24 hours" in post["message"]
    assert "WAV" not in post["message"]


def test_many_dates_of_one_problem_are_one_message_that_lists_them(watch: Watch, hook: Hook) -> None:
    watch.counts["missing"] = 3
    for day in DAYS:
        watch.run(day)
    watch.tick()
    (post,) = hook.posts
    assert post["title"].endswith("fails for 3 dates")
    assert f"When: {', '.join(DAYS)}" in post["message"]


def test_a_problem_that_persists_is_told_once_a_day_and_its_end_once(watch: Watch, hook: Hook) -> None:
    watch.counts["pending"] = 1
    watch.run(DAYS[0])
    watch.tick()
    for _ in range(2):
        watch.clock.now += timedelta(hours=1)
        watch.run(DAYS[0])
        assert watch.tick().startswith("0 messages composed")
    watch.clock.now = START + QUIET
    watch.run(DAYS[0])
    watch.tick()
    assert len(hook.posts) == 2
    watch.counts["pending"] = 0
    watch.run(DAYS[0])
    watch.tick()
    watch.run(DAYS[0])
    watch.tick()
    assert len(hook.posts) == 3
    assert hook.posts[2]["type"] == "success"
    assert hook.posts[2]["title"].startswith(
        "RingCX Archive: resolved: check recordings/every_recording_is_accounted_for"
    )
    assert DAYS[0] in hook.posts[2]["message"]


@on_disk
def test_a_warning_that_becomes_an_error_is_told_at_once(watch: Watch, hook: Hook) -> None:
    watch.counts["pending"] = 1
    watch.severity = AssetCheckSeverity.WARN
    watch.run(DAYS[0])
    watch.tick()
    watch.severity = AssetCheckSeverity.ERROR
    watch.run(DAYS[0])
    watch.tick()
    assert [post["type"] for post in hook.posts] == ["warning", "failure"]


@on_disk
def test_a_failed_run_is_told_with_its_sentence_once_and_its_end_too(watch: Watch, hook: Hook) -> None:
    watch.tick()
    watch.broken = PermanentFailure("RINGCX_MEDIA_PASSWORD was refused at the source; correct it.")
    for day in DAYS[:2]:
        watch.run(day)
        watch.run(day)
    watch.tick()
    watch.tick()
    (post,) = hook.posts
    assert post["title"] == "RingCX Archive: step recordings fails for 2 dates"
    for day in DAYS[:2]:
        assert f"- {day}: RINGCX_MEDIA_PASSWORD was refused at the source; correct it." in post["message"]
    assert "http://archive.example.com:3000/runs/" in post["message"]
    assert "the checks: http://archive.example.com:3000/assets/recordings?view=checks" in post["message"]
    watch.broken = None
    watch.clock.now = datetime.now(UTC)
    watch.run(DAYS[0])
    watch.tick()
    assert hook.posts[1]["title"] == f"RingCX Archive: resolved: step recordings for {DAYS[0]}"
    watch.tick()
    assert len(hook.posts) == 2


def test_more_runs_than_a_tick_reads_are_told_by_the_next_ones(
    watch: Watch, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.tick()
    monkeypatch.setattr("pipelines.orchestration.sensors.alerts.PAGE", 2)
    for day, broken in zip([*DAYS, DAYS[0]], [*(PermanentFailure("one"),) * 3, None], strict=True):
        watch.broken = broken
        watch.run(day)
    for _ in range(3):
        watch.tick()
    assert [post["title"].rpartition(": ")[2] for post in hook.posts if "step recordings " in post["title"]] == [
        "step recordings fails for 2 dates",
        f"step recordings fails for {DAYS[2]}",
        f"step recordings for {DAYS[0]}",
    ]


def test_an_error_that_is_not_foreseen_is_told_without_its_text(watch: Watch, hook: Hook) -> None:
    watch.tick()
    watch.broken = KeyError("+15550100999 John Doe")
    watch.run(DAYS[0])
    watch.tick()
    (post,) = hook.posts
    assert "an unexpected error (KeyError)" in post["message"]
    assert "5550100999" not in json.dumps(post)


def test_a_run_that_dagster_runs_again_by_itself_is_not_told(watch: Watch, hook: Hook) -> None:
    watch.tick()
    watch.broken = Failure("killed")
    watch.run(DAYS[0], tags={"dagster/will_retry": "true"})
    assert watch.tick().startswith("0 messages composed")
    assert hook.posts == []


@pytest.mark.parametrize(
    ("own", "canceled", "posts"), [(True, True, 0), (True, False, 1), (False, True, 1), (False, False, 1)]
)
def test_only_a_run_that_the_end_of_the_ui_canceled_itself_is_not_told(
    watch: Watch, hook: Hook, own: bool, canceled: bool, posts: int
) -> None:
    watch.tick()
    watch.broken = Failure("stopped")
    job = watch.defs.resolve_implicit_global_asset_job_def()
    run_id = str(uuid4())
    tags = {"archive/stopped_with_the_ui": run_id if own else "another run, which this one repeats"}
    job.execute_in_process(
        partition_key=DAYS[0], instance=watch.instance, raise_on_error=False, run_id=run_id, tags=tags
    )
    if canceled:
        watch.instance.report_run_canceled(watch.instance.get_runs()[0])
    watch.tick()
    assert len(hook.posts) == posts
    assert all(DAYS[0] in post["title"] for post in hook.posts)


def test_a_run_that_died_before_any_step_spoke_is_told(watch: Watch, hook: Hook) -> None:
    watch.tick()
    job = watch.defs.resolve_implicit_global_asset_job_def()
    tags = {"dagster/partition": DAYS[0]}
    run = watch.instance.create_run_for_job(job, tags=tags, status=DagsterRunStatus.STARTED)
    watch.instance.report_run_failed(run)
    watch.tick()
    (post,) = hook.posts
    assert "ended before any step reported a reason" in post["message"]
    assert DAYS[0] in post["title"]


def test_what_failed_before_anybody_was_to_be_told_is_not_told(watch: Watch, hook: Hook) -> None:
    watch.broken = PermanentFailure("long ago")
    watch.run(DAYS[0])
    watch.tick()
    watch.tick()
    assert hook.posts == []


def test_a_delivery_that_fails_fails_the_tick_and_is_made_up_for(watch: Watch, hook: Hook) -> None:
    watch.counts["missing"] = 1
    watch.run(DAYS[0])
    hook.status = 500
    for _ in range(2):
        with pytest.raises(ExpectedError, match=r"entry 1 of ALERT_URLS \(json\)") as failed:
            watch.tick()
        assert TOKEN not in str(failed.value)
    watch.counts["missing"] = 0
    watch.run(DAYS[0])
    hook.status = 200
    assert "2 delivered" in watch.tick()
    assert [post["type"] for post in hook.posts] == ["failure", "success"]
    assert watch.tick().startswith("0 messages composed, 0 delivered")


def test_an_entry_that_takes_a_message_gets_it_once_while_another_is_down(
    watch: Watch, hooks: Callable[[], Hook], monkeypatch: pytest.MonkeyPatch
) -> None:
    well, ill = hooks(), hooks()
    ill.status = 503
    monkeypatch.setenv("ALERT_URLS", f"{ill.address}, {well.address}")
    watch.counts["missing"] = 1
    watch.run(DAYS[0])
    for _ in range(3):
        with pytest.raises(ExpectedError, match="entry 1 of"):
            watch.tick()
    assert len(well.posts) == 1
    ill.status = 200
    watch.tick()
    assert len(well.posts) == len(ill.posts) == 1


@on_disk
def test_an_address_never_reaches_a_log_an_error_a_repr_or_the_instance(
    watch: Watch, hook: Hook, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    watch.counts["missing"] = 1
    watch.run(DAYS[0])
    with caplog.at_level(logging.DEBUG):
        hook.status = 500
        with pytest.raises(ExpectedError) as failed:
            watch.tick()
        hook.close()
        with pytest.raises(ExpectedError):
            watch.tick()
        with pytest.raises(SettingsError, match="entry 2 is not an address"):
            Destinations(SecretStr(f"{hook.address},nonsense://{TOKEN}"))
    settings = load(AlertSettings)
    shown = f"{failed.value!r} {caplog.text} {settings!r} {Destinations(settings.alert_urls)!r}"
    assert TOKEN not in shown
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()


@pytest.mark.parametrize("urls", ["nonsense://here", "no address", "json://"])
def test_an_address_that_nobody_knows_fails_the_tick_with_its_place(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, urls: str
) -> None:
    monkeypatch.setenv("ALERT_URLS", urls)
    with pytest.raises(SettingsError, match="entry 1 is not an address that Apprise knows"):
        watch.tick()


def test_an_address_may_hold_commas_of_its_own() -> None:
    found = Destinations(SecretStr("json://127.0.0.1/a,b?+X=1,2 , xml://127.0.0.1/x,"))
    assert len(found) == 2


@pytest.mark.parametrize("url", ["dagster.example.org", "http://user:pw@dagster.example.org"])
def test_a_ui_address_that_is_none_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ALERT_UI_URL", url)
    with pytest.raises(SettingsError, match="ALERT_UI_URL must be") as refused:
        load(AlertSettings)
    assert url not in str(refused.value)


def test_many_dates_of_one_problem_are_one_short_message_and_are_kept() -> None:
    def problem(n: int) -> AlertProblem:
        return AlertProblem(
            subject="check a/b", date=f"{n:05}", severity=Level.error, sentence="s", todo="t", where="w"
        )

    state = AlertState()
    assert state.update({found.key: found for found in map(problem, range(2_000))}, START) == 1
    assert len(state.outbox[0].body) < 2_000
    again = AlertState.model_validate_json(state.model_dump_json())
    assert again == state


def test_the_products_own_failures_and_checks_reach_people_without_personal_data(
    make_world: MakeWorld, recent: list[date], hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(
        faults=Faults(report_html_200=Where(paths=("global_call_type_detail",)), not_found=Where(share=0.5)),
        ARCHIVE_GIVE_UP_DAYS="0",
    )

    def tick() -> None:
        alerts()(build_sensor_context(instance=world.instance))

    tick()
    world.run(recent[0])
    tick()
    world.sandbox.set_faults(Faults(not_found=Where(share=0.5)))
    world.run_until_final(recent[0])
    world.run(recent[0], checks=True)
    tick()
    titles = " ".join(post["title"] for post in hook.posts)
    assert "check " in titles
    assert f"step global_call_type_detail fails for {recent[0]}" in titles
    assert len(hook.posts) == len({post["title"] for post in hook.posts})
    assert len(hook.posts) <= 6
    rows = [
        row
        for report in ("agent_segment_metadata",)
        for row in world.services()
        .ledger.all_rows(
            report, recent[0], columns=["ani", "agent_last_name", "agent_disposition", "segment_recording_url"]
        )
        .to_pylist()
    ]
    assert rows
    posted = json.dumps(hook.posts)
    assert not [value for row in rows for value in row.values() if value and len(value) > 5 and value in posted]

"""What Dagster is told: the asset graph, schedules, sensors, instance settings."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from dagster import (
    AssetCheckKey,
    AssetKey,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    Definitions,
    ExecuteInProcessResult,
    RunRequest,
    SkipReason,
    build_run_status_sensor_context,
    build_schedule_context,
    build_sensor_context,
)
from dagster._core.definitions.sensor_definition import SensorExecutionData

from assets.calls import calls
from assets.manifest import daily_manifest
from assets.recordings import recording_links, recordings
from assets.reports import agent_segment_metadata, global_call_type_detail
from pipelines import definitions
from pipelines.definitions import build_defs
from pipelines.ledger.files import LocalFiles
from pipelines.ledger.states import RecordingState
from pipelines.ledger.store import Ledger
from pipelines.orchestration.environment import Environment
from pipelines.orchestration.resources import all_resources
from pipelines.settings import Calendar, SettingsError
from sandbox.faults import Faults, Where
from tests import states
from tests.pipeline.conftest import MakeWorld

ROOT = Path(__file__).parents[2]


def test_the_graph_jobs_schedules_and_sensors_have_their_public_names() -> None:
    defs = build_defs()
    graph = defs.resolve_asset_graph()
    depends = {
        key.to_user_string(): {up.to_user_string() for up in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert depends == {
        "agent_segment_metadata": set(),
        "global_call_type_detail": set(),
        "recording_links": {"agent_segment_metadata", "global_call_type_detail"},
        "recordings": {"recording_links"},
        "daily_manifest": {"recordings"},
        "calls": {"daily_manifest"},
    }
    assert {key.to_user_string() for key in graph.materializable_asset_keys} == set(depends)
    repository = defs.get_repository_def()
    jobs = {"accept_losses", "archive_day", "backfill_plan", "restore_drill"}
    assert {job.name for job in repository.get_all_jobs()} >= jobs
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "daily_archive",
        "daily_calls_index",
        "daily_restore_drill",
        "daily_standing_check",
        "intraday_archive",
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "pending_recordings",
        "archive_despite_failed_report",
        "continue_stopped_runs",
        "alerts",
    }


def test_each_date_is_judged_by_its_checks_and_all_dates_by_one_that_no_dates_run_needs() -> None:
    defs = build_defs()
    graph = defs.resolve_asset_graph()
    partitioned = {
        (key.asset_key.to_user_string(), key.name): graph.get(key).partitions_def is not None
        for key in graph.asset_check_keys
    }
    of_a_date = {
        ("agent_segment_metadata", "report_is_plausible"),
        ("global_call_type_detail", "report_is_plausible"),
        ("recordings", "audio_is_true"),
        ("recordings", "every_recording_is_accounted_for"),
        ("recordings", "mono_and_stereo_agree"),
    }
    assert partitioned == {**dict.fromkeys(of_a_date, True), ("recordings", "no_overdue_recordings"): False}
    steps = {node.name for node in defs.resolve_job_def("archive_day").nodes}
    assert {f"{asset}_{name}" for asset, name in of_a_date} <= steps
    assert "recordings_no_overdue_recordings" not in steps
    assert [node.name for node in defs.resolve_job_def("standing_check").nodes] == ["recordings_no_overdue_recordings"]
    schedule = defs.resolve_schedule_def("daily_standing_check")
    assert (schedule.job_name, schedule.cron_schedule) == ("standing_check", "0 12 * * *")


def test_every_asset_says_what_it_is_and_who_owns_it_and_those_of_a_date_have_the_daily_axis_with_today() -> None:
    graph = build_defs(calendar=Calendar(archive_owner="team:archive")).resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description
        assert node.owners == ["team:archive"]
        if not node.is_materializable:  # it belongs to no date
            continue
        assert node.freshness_policy is not None
        assert ("dagster/column_schema" in node.metadata) == (key.to_user_string() != "recordings")  # WAVs have none
        assert node.kinds
        assert node.group_name in {"reports", "recordings", "proof", "search"}
        assert node.partitions_def.has_partition_key(datetime.now(UTC).date().isoformat())
        assert node.backfill_policy is None


def test_assets_and_checks_link_to_the_docs_that_a_setting_names_and_to_nothing_without_one() -> None:
    where = "https://git.example.com/archive/docs"
    linked, plain = (
        build_defs(calendar=Calendar(archive_docs_url=url)).resolve_asset_graph() for url in (f"{where}/", None)
    )
    headings = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8").splitlines()
    for section, keys in (
        ("What the metadata says", linked.get_all_asset_keys()),
        ("The checks", linked.asset_check_keys),
    ):
        assert f"## {section}" in headings
        for key in keys:
            link = f"[What to do when something is wrong]({where}/operations.md#{section.lower().replace(' ', '-')})"
            described, bare = (graph.get(key).description or "" for graph in (linked, plain))
            assert described == f"{bare}\n\n{link}"
            assert bare


def test_assets_can_be_imported_by_their_names_and_belong_to_nobody_unless_a_setting_says_so() -> None:
    graph = build_defs(calendar=Calendar()).resolve_asset_graph()
    for asset in (agent_segment_metadata, global_call_type_detail, recording_links, recordings, daily_manifest, calls):
        assert graph.get(asset.key).owners == []
    with pytest.raises(ValueError, match=r"e-mail address or team:<name>"):
        Calendar(archive_owner="somebody")


def test_nothing_is_read_and_nothing_is_tuned_when_the_definitions_are_imported(tmp_path: Path) -> None:
    """A wrong setting ends the loading of the code location, with its sentence, and not the import."""
    (tmp_path / ".env").write_text("ARCHIVE_BUCKET=from-the-file\n")
    code = (
        "import gc, os; before = dict(os.environ), gc.get_threshold(), gc.get_freeze_count()\n"
        "import pipelines.definitions as module\n"
        "from assets.checks import every_recording_is_accounted_for, no_overdue_recordings\n"
        "assert (dict(os.environ), gc.get_threshold(), gc.get_freeze_count()) == before\n"
        "module.defs()"
    )
    wrong = {**os.environ, "ARCHIVE_TIMEZONE": "Nowhere", "ARCHIVE_START_DATE": "2026-11-01", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=tmp_path, env=wrong, capture_output=True, text=True
    )
    assert done.stderr.strip().endswith(
        "ARCHIVE_TIMEZONE is not an IANA time zone; write it like Europe/Berlin or US/Arizona (see .env.example)"
    )


def test_a_setting_that_is_wrong_ends_its_step_with_a_sentence_and_the_next_run_reads_it_again(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    job = build_defs().resolve_job_def("archive_day")

    def run() -> ExecuteInProcessResult:
        day = datetime.now(UTC).date().isoformat()
        return job.execute_in_process(
            partition_key=day, instance=world.instance, op_selection=["recording_links"], raise_on_error=False
        )

    with monkeypatch.context() as patch:
        patch.setenv("RINGCX_ACCOUNT_IDS", "")
        sentence = (
            "RINGCX_ACCOUNT_IDS is not set: list the RingCX sub-account ids, separated by commas (see .env.example)"
        )
        assert world.failures(run()) == {"recording_links": sentence}
    assert run().success


def test_a_new_account_is_asked_for_its_first_date_and_offered_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A default would put *missing* one click away from a run for each date that the source purged long ago."""
    with pytest.raises(SettingsError, match=r"^ARCHIVE_START_DATE is not set: give the first date to archive\."):
        definitions.defs()
    first = datetime.now(UTC).date() - timedelta(days=89)
    monkeypatch.setenv("ARCHIVE_START_DATE", f"{first}")
    graph = definitions.defs().resolve_asset_graph()
    of_dates = [graph.get(key).partitions_def for key in graph.materializable_asset_keys]
    assert {len(partitions.get_partition_keys()) for partitions in of_dates} == {90}


def test_the_nightly_schedule_takes_yesterday_and_the_look_back_in_local_days() -> None:
    defs = build_defs(calendar=Calendar(archive_timezone="US/Arizona", archive_look_back_days=2))
    schedule = defs.resolve_schedule_def("daily_archive")
    assert schedule.execution_timezone == "US/Arizona"
    # 04:30 in Arizona is 11:30 UTC; at 23:00 UTC of the day before, Arizona has the same date.
    requests = evaluate_schedule(defs, "daily_archive", datetime(2026, 11, 20, 11, 30, tzinfo=UTC))
    assert [request.partition_key for request in requests] == ["2026-11-19", "2026-11-18", "2026-11-17"]
    assert [request.run_key for request in requests] == [f"2026-11-20:{request.partition_key}" for request in requests]


def test_the_nightly_schedule_asks_for_nothing_before_the_first_date() -> None:
    defs = build_defs(calendar=Calendar(archive_start_date=date(2026, 11, 19)))
    requests = evaluate_schedule(defs, "daily_archive", datetime(2026, 11, 20, 4, 30, tzinfo=UTC))
    assert [request.partition_key for request in requests] == ["2026-11-19"]


def test_the_intraday_schedule_is_off_and_takes_the_current_local_day() -> None:
    defs = build_defs()
    assert defs.resolve_schedule_def("intraday_archive").default_status.value == "STOPPED"
    requests = evaluate_schedule(defs, "intraday_archive", datetime(2026, 11, 20, 14, 15, tzinfo=UTC))
    assert [request.partition_key for request in requests] == ["2026-11-20"]


def evaluate_schedule(defs: Definitions, name: str, at: datetime) -> list[RunRequest]:
    context = build_schedule_context(scheduled_execution_time=at, repository_def=defs.get_repository_def())
    return list(defs.resolve_schedule_def(name).evaluate_tick(context).run_requests or [])


def evaluate(
    instance: DagsterInstance, cursor: str | None = None, *, now: datetime | None = None
) -> SensorExecutionData:
    repository = build_defs().get_repository_def()
    resources = all_resources(Environment(clock=lambda: now or datetime.now(UTC)))
    with build_sensor_context(instance, cursor, repository_def=repository, resources=resources) as context:
        return repository.get_sensor_def("pending_recordings").evaluate_tick(context)


def test_the_sensor_asks_for_dates_with_due_recordings_and_for_no_others(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(faults=Faults(not_found=Where(share=1.0)))
    assert world.run(recent[0], checks=True).success
    found = evaluate(world.instance)
    # Of the calls over midnight, too: the dates that these belong to were never pulled.
    assert [request.partition_key for request in found.run_requests] == [recent[0].isoformat()]
    assert {key for request in found.run_requests for key in request.asset_selection} == {
        AssetKey("recordings"),
        AssetKey("daily_manifest"),
        AssetKey("calls"),
    }
    world.sandbox.set_faults(Faults())
    for request in found.run_requests:
        assert world.run(
            date.fromisoformat(request.partition_key), select=["recordings", "daily_manifest"], checks=True
        ).success
    later = evaluate(world.instance, found.cursor)
    assert not later.run_requests
    assert isinstance(later.skip_message, str)


def test_the_sensor_waits_for_the_time_of_the_next_attempt(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(faults=Faults(not_found=Where(share=1.0)), ARCHIVE_RETRY_MINUTES="30")
    assert world.run(recent[0], checks=True).success
    assert not evaluate(world.instance).run_requests


def test_the_sensor_starts_nothing_beside_an_unfinished_run_of_the_date(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(faults=Faults(not_found=Where(share=1.0)))
    assert world.run(recent[0], checks=True).success
    job = build_defs().resolve_job_def("archive_day")
    run = world.instance.create_run_for_job(
        job, tags={"dagster/partition": recent[0].isoformat()}, status=DagsterRunStatus.STARTED
    )
    assert recent[0].isoformat() not in {request.partition_key for request in evaluate(world.instance).run_requests}
    world.instance.delete_run(run.run_id)
    assert recent[0].isoformat() in {request.partition_key for request in evaluate(world.instance).run_requests}


def pending_state(day: date, written_at: datetime) -> RecordingState:
    return states.pending(f"15300002/{day}.WAV", day, written_at, account_id="15300002")


def test_a_writer_whose_clock_is_ahead_does_not_blind_the_sensor_to_the_others(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world()
    now, ahead = datetime.now(UTC), datetime.now(UTC) + timedelta(days=1)
    files = LocalFiles(Path("ledger"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEDGER_URL", "ledger")
        Ledger(files, clock=lambda: ahead).append_states([pending_state(recent[0], now)])
        first = evaluate(world.instance)
        assert [request.partition_key for request in first.run_requests] == [recent[0].isoformat()]
        Ledger(files, clock=lambda: now).append_states([pending_state(recent[1], now)])
        second = evaluate(world.instance, first.cursor)
    assert recent[1].isoformat() in {request.partition_key for request in second.run_requests}


def test_dates_that_always_fail_do_not_take_every_place_from_the_older_ones(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world()
    now = datetime.now(UTC)
    days = [recent[0] - timedelta(days=back) for back in range(30)]
    asked: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEDGER_URL", "ledger")
        Ledger(LocalFiles(Path("ledger")), clock=lambda: now).append_states([pending_state(day, now) for day in days])
        job = build_defs().resolve_job_def("archive_day")
        for _ in range(2):
            for request in evaluate(world.instance, now=now).run_requests:
                asked.append(request.partition_key)
                tags = {"dagster/partition": request.partition_key, "dagster/run_key": request.run_key}
                world.instance.create_run_for_job(job, tags=tags, status=DagsterRunStatus.FAILURE)
    assert sorted(asked, reverse=True) == [day.isoformat() for day in days]


def test_a_failed_report_takes_nothing_with_it(make_world: MakeWorld, recent: list[date]) -> None:
    world = make_world(faults=Faults(report_html_200=Where(paths=("global_call_type_detail",))))
    result = world.run(recent[0], checks=True)
    assert not result.success
    defs = build_defs()
    event = next(
        candidate
        for candidate in result.all_events
        if candidate.event_type_value in ("RUN_FAILURE", "PIPELINE_FAILURE")
    )
    context = build_run_status_sensor_context(
        sensor_name="archive_despite_failed_report",
        dagster_event=event,
        dagster_instance=world.instance,
        dagster_run=world.instance.get_run_by_id(result.run_id),
    ).for_run_failure()
    request = defs.resolve_sensor_def("archive_despite_failed_report")(context)
    assert not isinstance(request, SkipReason)
    assert request.partition_key == recent[0].isoformat()
    assert world.run(recent[0], select=[key.to_user_string() for key in request.asset_selection], checks=True).success
    states = world.states(recent[0])
    assert {state.source for state in states.values()} == {"agent_segment_metadata"}
    assert {str(state.status) for state in states.values()} == {"archived"}


def _continued(run: DagsterRun) -> RunRequest | SkipReason:
    """What `continue_stopped_runs` asks for after this canceled run."""
    with DagsterInstance.ephemeral() as instance:
        context = build_run_status_sensor_context(
            sensor_name="continue_stopped_runs",
            dagster_event=DagsterEvent(DagsterEventType.RUN_CANCELED.value, run.job_name),
            dagster_instance=instance,
            dagster_run=run,
        )
        request = build_defs().resolve_sensor_def("continue_stopped_runs")(context)
    assert isinstance(request, RunRequest | SkipReason)
    return request


@pytest.mark.parametrize(
    ("asset", "checks", "steps"),
    [
        (None, ["audio_is_true"], {"recordings_audio_is_true"}),
        ("recordings", [], {"recordings"}),
        ("agent_segment_metadata", None, {"agent_segment_metadata", "agent_segment_metadata_report_is_plausible"}),
    ],
)
def test_a_run_that_was_stopped_with_the_ui_goes_on_with_the_checks_it_had(
    recent: list[date], asset: str | None, checks: list[str] | None, steps: set[str]
) -> None:
    run_id = str(uuid4())
    keys = None if checks is None else frozenset(AssetCheckKey(AssetKey("recordings"), name) for name in checks)
    run = DagsterRun(
        "archive_day",
        run_id,
        asset_selection=frozenset([AssetKey(asset)] if asset else []),
        asset_check_selection=keys,
        tags={"dagster/partition": str(recent[1]), "archive/stopped_with_the_ui": run_id},
    )
    request = _continued(run)
    assert isinstance(request, RunRequest)
    job = build_defs().resolve_job_def("archive_day")
    subset = job.get_subset(
        asset_selection=frozenset(request.asset_selection or ()),
        asset_check_selection=None if request.asset_check_keys is None else frozenset(request.asset_check_keys),
    )
    assert {node.name for node in subset.nodes} == steps


def test_a_run_that_repeats_a_stopped_one_and_is_terminated_does_not_go_on(recent: list[date]) -> None:
    tags = {"dagster/partition": str(recent[1]), "archive/stopped_with_the_ui": str(uuid4())}
    assert isinstance(_continued(DagsterRun("archive_day", str(uuid4()), tags=tags)), SkipReason)


def test_the_instance_has_the_settings_that_the_design_relies_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    assert settings["telemetry"]["enabled"] is False
    assert settings["nux"]["enabled"] is False
    limit, *_ = settings["concurrency"]["runs"]["tag_concurrency_limits"]
    assert limit == {"key": "dagster/partition", "value": {"applyLimitPerUniqueValue": True}, "limit": 1}
    assert settings["concurrency"]["pools"]["granularity"] == "op"
    assert settings["run_retries"] == {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    with DagsterInstance.from_config(str(home)) as instance:
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled


def test_no_tool_table_overrides_the_workspace() -> None:
    assert "[tool.dagster]" not in (ROOT / "pyproject.toml").read_text()
    assert "[tool.dg]" not in (ROOT / "pyproject.toml").read_text()

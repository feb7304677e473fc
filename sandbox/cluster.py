"""Many machines on one: a Dagster daemon and Celery workers that share nothing but Postgres, the broker and S3.

Each machine is a folder of its own: working folder, DAGSTER_HOME, DATA_DIR, TMPDIR and HOME; its processes are told of
no other. It runs what deploy/celery/ says, and dies as machines do: all its processes at once, by SIGKILL. Like the
demo, this is a place where the sandbox meets the product. `benchmarks/backfill.py` prints its figures, a test holds its
claims.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeVar

import pyarrow.parquet as pq
from dagster import DagsterInstance, DagsterRunStatus, RunRecord
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from sandbox.broker import LocalBroker
from sandbox.config import Limits, SandboxConfig
from sandbox.postgres import LocalPostgres
from sandbox.proof import environment, exceeded, prove, truth_of
from sandbox.s3 import LocalS3
from sandbox.server import RunningSandbox

_ROOT = Path(__file__).parents[1]
_DEPLOY = _ROOT / "deploy" / "celery"
_STOP_S = 20.0
_COMMAND_S = 180.0
ASSETS = (
    *("agent_segment_metadata", "global_call_type_detail"),
    *("recording_links", "recordings", "daily_manifest", "calls"),
)
_BACKFILL = (
    "mutation ($wanted: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $wanted) { __typename } }"
)
_T = TypeVar("_T")


Lost = Literal["worker", "process", "broker", "database", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillPlan:
    """How much of what.

    Attributes:
        dates: Past dates that are archived.
        calls_per_date: Each has one to three recordings.
        workers: Machines that take runs, one at a time each.
        lose: What is lost, without warning, while a date is being archived: a machine for good, the
            process of its run, or the broker or the database for `outage_s`.
        limit: Of the source's reports, in its notation, over all machines.
        timeout_s: The backfill is given up then.
    """

    dates: int = 30
    calls_per_date: tuple[int, int] = (1, 2)
    workers: int = 2
    lose: Lost = "worker"
    outage_s: float = 20.0
    limit: str = "20/10"
    timeout_s: float = 1800.0


@dataclass(slots=True)
class BackfillReport:
    """What came of it. `problems` holds a sentence for each thing that is not as promised; empty is the only good.

    Attributes:
        noticed_s: From the loss until the run that was under way had ended, mostly as failed.
        resumed_s: From the loss until a run of its date had succeeded.
        seconds: From the start of the first run to the end of the last.
        by_machine: Tasks that each worker was given.
        fetched_twice: Recordings that were sent whole more than once.
    """

    recordings: int = 0
    held: int = 0
    size: int = 0
    media_requests: int = 0
    fetched_twice: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    by_machine: Counter[str] = field(default_factory=Counter)
    noticed_s: float = 0.0
    resumed_s: float = 0.0
    seconds: float = 0.0
    violations: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Machine:
    """One machine: a folder, and the processes that work in it.

    Args:
        folder: All that it writes is stored there, but for temporary files.
        variables: Its whole environment but for what finds the interpreter.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.name = folder.name
        self.folder = folder
        home, data, work = (folder / name for name in ("home", "data", "work"))
        # Not in the folder: Dagster's sockets are in it, and the path of one has 107 characters at most.
        self._temporary = TemporaryDirectory(prefix="machine-", ignore_cleanup_errors=True)
        for path in (home, data, work):
            path.mkdir(parents=True)
        shutil.copy(_DEPLOY / "dagster.yaml", home)
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "LANG": "C.UTF-8",
            **variables,
            "DAGSTER_HOME": str(home),
            "DATA_DIR": str(data),
            "TMPDIR": self._temporary.name,
            "HOME": str(work),
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """A program of the environment on this machine, in a session of its own."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - a fixed command
                [str(Path(sys.executable).parent / command[0]), *command[1:]],
                env=self.environment,
                cwd=self.folder / "work",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def work(self) -> None:
        """Be a run worker, one run at a time, as the systemd unit says."""
        self.start("celery", "--app", "pipelines.celery_worker", "worker", "--concurrency", "1", "--loglevel", "INFO",
                   "--hostname", f"{self.name}@%h", "--without-gossip", "--without-mingle")  # fmt: skip

    def got(self, run: RunRecord) -> bool:
        """Whether this worker was given the run's task."""
        task = run.dagster_run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        return task is not None and f"[{task}] received" in self.log()

    def log(self) -> str:
        """What its processes said."""
        return (self.folder / "log").read_text(errors="replace")

    def lose_power(self) -> None:
        """Every process of the machine ends at once, run and all."""
        self._end(signal.SIGKILL)

    def shut_down(self) -> None:
        """End all processes in order; kill those that are still running after a while."""
        self._end(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
        self._end(signal.SIGKILL)
        self._temporary.cleanup()

    def _end(self, number: signal.Signals) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            if number is signal.SIGKILL:
                process.wait()


def run(plan: BackfillPlan, folder: Path, postgres: LocalPostgres, say: Callable[[str], None]) -> BackfillReport:
    """Backfill `plan.dates` past dates in `folder`, with a new database of `postgres`."""
    last = datetime.now(UTC).date() - timedelta(days=2)
    days = [last - timedelta(days=back) for back in range(plan.dates - 1, -1, -1)]
    report = BackfillReport()
    config = SandboxConfig(
        calls_per_day=plan.calls_per_date,
        talk_seconds=(1, 3),
        crossing_zones=(),
        media_latency_s=0.3,
        limits=Limits(reports=plan.limit, exchange=plan.limit),
    )
    with ExitStack() as stack:
        source = stack.enter_context(RunningSandbox(config, own_process=True))
        s3 = stack.enter_context(LocalS3(folder / "s3"))
        broker = stack.enter_context(LocalBroker(folder / "broker", configuration=_DEPLOY / "rabbitmq.conf"))
        truth = truth_of(source, days)
        report.recordings, report.size = len(truth), sum(recording["size"] for recording in truth.values())
        say(f"{len(truth)} recordings over {len(days)} dates, {report.size / 1e6:.1f} MB")
        postgres_url = postgres.make_database("dagster")
        variables = {
            **source.environment(),
            **s3.environment(),
            "ARCHIVE_BUCKET": s3.bucket,
            "ARCHIVE_START_DATE": f"{days[0]}",
            "ARCHIVE_RETRY_MINUTES": "0",
            "RINGCX_LIMIT_REPORTS": plan.limit,
            "RINGCX_LIMIT_AUTH": plan.limit,
            "RATE_LIMIT_URL": postgres_url,
            "DAGSTER_POSTGRES_URL": postgres_url,
            "CELERY_RESULT_BACKEND": f"db+{postgres_url}",
            "CELERY_BROKER_URL": broker.url,
        }
        servers: dict[str, LocalBroker | LocalPostgres] = {"broker": broker, "database": postgres}
        cluster = _Cluster(plan, days, report, say, servers, folder=folder / "machines", variables=variables)
        stack.callback(cluster.stop)
        with environment(cluster.control.environment):
            cluster.play()
            counters = source.counters()
            report.held, doubts = prove(days, truth, source, s3)
        report.media_requests = counters["requests"].get("media", 0)
        report.fetched_twice = sum(number > 1 for number in counters["media_complete_by_path"].values())
        report.violations = counters["violations"]
        report.problems = [*doubts, *_noted_twice(s3), *exceeded(counters)]
    return report


class _Cluster:
    """The machines, and the backfill over them."""

    def __init__(
        self,
        plan: BackfillPlan,
        days: list[date],
        report: BackfillReport,
        say: Callable[[str], None],
        servers: Mapping[str, LocalBroker | LocalPostgres],
        *,
        folder: Path,
        variables: Mapping[str, str],
    ) -> None:
        self.control = Machine(folder / "control", variables)
        self.workers = [Machine(folder / f"worker-{number + 1}", variables) for number in range(plan.workers)]
        self._plan, self._days, self._report, self._say, self._servers = plan, days, report, say, servers

    def play(self) -> None:
        """Ask for the backfill, kill a machine while it works, and wait until every run has ended."""
        with DagsterInstance.get() as instance:
            for pool in ("ringcx_reports", "ringcx_media"):  # as deploy/init.sh does
                instance.event_log_storage.set_concurrency_slots(pool, 8)
            for worker in self.workers:
                worker.work()
            self._ask_for_backfill()
            # After it, so that the daemon's first look finds it: the next one is 30 seconds later.
            self.control.start("dagster-daemon", "run", "-w", str(_ROOT / "workspace.yaml"))
            if self._plan.lose != "nothing":
                self._lose(instance)
            wanted = {day.isoformat() for day in self._days}

            def over() -> list[RunRecord] | None:
                runs = _runs(instance)
                good = {_day(record) for record in runs if record.dagster_run.status is DagsterRunStatus.SUCCESS}
                return runs if wanted <= good and all(record.dagster_run.is_finished for record in runs) else None

            self._count(self._wait(instance, over))

    def stop(self) -> None:
        """End every process."""
        for machine in (self.control, *self.workers):
            machine.shut_down()

    def _ask_for_backfill(self) -> None:
        """As the UI does. Runs of `dagster job backfill` are not run again when their worker is lost."""
        wanted = {
            "assetSelection": [{"path": [name]} for name in ASSETS],
            "partitionNames": [f"{day}" for day in self._days],
        }
        variables = json.dumps({"wanted": wanted})
        self._must("dagster-graphql", "-w", str(_ROOT / "workspace.yaml"), "-t", _BACKFILL, "-v", variables)
        if "LaunchBackfillSuccess" not in self.control.log():
            raise RuntimeError(f"The backfill was refused: {self.control.log()[-2000:]}")

    def _must(self, *command: str) -> None:
        if self.control.start(*command).wait(_COMMAND_S):
            raise RuntimeError(f"{' '.join(command[:3])} failed: {self.control.log()[-2000:]}")

    def _lose(self, instance: DagsterInstance) -> None:
        """Once a quarter of the dates is done and another is worked on; then wait for that one."""

        def busy() -> tuple[Machine, RunRecord] | None:
            runs = _runs(instance)
            started = [record for record in runs if record.dagster_run.status is DagsterRunStatus.STARTED]
            # With most of its steps to come: one near its end may have ended before it is lost.
            under_way = [
                record for record in started if instance.get_run_stats(record.dagster_run.run_id).steps_succeeded <= 2
            ]
            done = sum(record.dagster_run.status is DagsterRunStatus.SUCCESS for record in runs)
            if done < max(1, self._plan.dates // 4):
                return None
            return next(
                ((worker, record) for record in under_way for worker in self.workers if worker.got(record)), None
            )

        victim, under_way = self._wait(instance, busy)
        day = _day(under_way)
        if self._plan.lose == "worker":
            victim.lose_power()
            lost = time.monotonic()
            self._say(f"{victim.name} lost its power with {day} under way")
        elif self._plan.lose == "process":
            os.kill(_process(instance, under_way), signal.SIGKILL)
            lost = time.monotonic()
            self._say(f"the process of {day} on {victim.name} was killed")
        else:
            server = self._servers[self._plan.lose]
            server.stop(crash=True)
            lost = time.monotonic()
            self._say(f"the {self._plan.lose} is gone for {self._plan.outage_s:.0f} s, with {day} under way")
            time.sleep(self._plan.outage_s)
            server.start()

        def noticed() -> bool | None:
            run = instance.get_run_by_id(under_way.dagster_run.run_id)
            return (run is not None and run.is_finished) or None

        def resumed() -> bool | None:
            good = {_day(record) for record in _runs(instance) if record.dagster_run.status is DagsterRunStatus.SUCCESS}
            return day in good or None

        self._wait(instance, noticed)
        self._report.noticed_s = time.monotonic() - lost
        self._wait(instance, resumed)
        self._report.resumed_s = time.monotonic() - lost
        ended, done = self._report.noticed_s, self._report.resumed_s
        self._say(f"that run had ended after {ended:.0f} s, its date was done after {done:.0f} s")

    def _wait(self, instance: DagsterInstance, what: Callable[[], _T | None]) -> _T:
        said, since = "", time.monotonic()
        while (found := what()) is None:
            states = Counter(record.dagster_run.status.value for record in _runs(instance))
            line = ", ".join(f"{number} {state.lower()}" for state, number in sorted(states.items()))
            if line and line != said:
                self._say(f"  {line}")
                said = line
            if time.monotonic() - since > self._plan.timeout_s:
                logs = "\n".join(
                    f"{machine.name}: {machine.log()[-1500:]}" for machine in (self.control, *self.workers)
                )
                raise TimeoutError(f"Not over after {self._plan.timeout_s:.0f} s: {line}\n{logs}")
            time.sleep(0.5)
        return found

    def _count(self, runs: list[RunRecord]) -> None:
        self._report.runs = Counter(record.dagster_run.status.value.lower() for record in runs)
        spans = [(record.start_time, record.end_time) for record in runs if record.start_time and record.end_time]
        self._report.seconds = max(end for _, end in spans) - min(start for start, _ in spans)
        for worker in self.workers:
            self._report.by_machine[worker.name] = sum(worker.got(record) for record in runs)


def _runs(instance: DagsterInstance) -> list[RunRecord]:
    return list(instance.get_run_records())


def _day(run: RunRecord) -> str:
    return run.dagster_run.tags["dagster/partition"]


def _process(instance: DagsterInstance, run: RunRecord) -> int:
    """Return the process id of a run from its events; all our machines are this one."""
    told = " ".join(entry.message for entry in instance.all_logs(run.dagster_run.run_id))
    found = re.search(r"Started process for run \(pid: (\d+)\)", told)
    if found is None:
        raise RuntimeError(f"The run {run.dagster_run.run_id} does not tell its process.")
    return int(found[1])


def _noted_twice(s3: LocalS3) -> list[str]:
    """A sentence for each recording whose archiving stands in the ledger too often, read past our own code.

    Once is enough; a recording that the date before found too may be noted by both dates' runs, if they ran together.
    """
    parts = sorted((s3.folder / s3.bucket / "ledger" / "recording_states").rglob("*.parquet"))
    columns = ["recording_id", "status", "run_id", "found_on"]
    lines = [
        (part.parent.name, line)
        for part in parts
        for line in pq.read_table(part, columns=columns, partitioning=None).to_pylist()
    ]
    archived = [line for _, line in lines if line["status"] == "archived"]
    shared = {line["recording_id"] for folder, line in lines if folder != f"date={line['found_on']}"}
    by_run = Counter((line["recording_id"], line["run_id"]) for line in archived)
    runs = Counter(recording_id for recording_id, _ in by_run)
    problems = [f"{name} was archived {number} times by one run." for (name, _), number in by_run.items() if number > 1]
    allowed = {name: 2 if name in shared else 1 for name in runs}
    return problems + [
        f"{name} was archived by {number} runs." for name, number in runs.items() if number > allowed[name]
    ]

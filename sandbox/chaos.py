"""Everything goes wrong at once, and then it is counted: what was injected, what was survived, what is not as promised.

Run workers are the documented command in processes of their own, killed with SIGKILL at random, some at any moment and
some while recordings are on their way; the source fails as `faults.py` says and lets its tokens die before their time,
S3 fails as `s3_faults.py` says, and once nothing can be written to the ledger. Like the demo, this is a
place where the sandbox meets the product. `benchmarks/chaos.py` prints its figures, a test holds its claims.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import runpy
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.ledger.files import LedgerError
from pipelines.orchestration.environment import Environment
from pipelines.settings import Settings
from sandbox.config import Limits, SandboxConfig
from sandbox.faults import Faults, Where
from sandbox.proof import Truth, environment, exceeded, prove, states_of, truth_of
from sandbox.s3 import LocalS3
from sandbox.s3_faults import FaultyS3, S3Faults
from sandbox.server import RunningSandbox

_ROOT = Path(__file__).parents[1]
_DISK_FULL_S = 4.0
_COMMAND = ("dagster", "asset", "materialize", "-m", "pipelines.definitions", "--select", "*")
# A run worker is forked from a process that has imported everything, which alone takes seconds.
_WARM = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload(["dagster", "pipelines.definitions"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosPlan:
    """The extent of each disturbance. `rounds` bounds the runs of each date; the rest are shares of requests that fail.

    `token_seconds` is the declared lifetime of tokens, `token_deaths_s` how often all of them expire anyway.
    """

    seed: int = 1
    dates: int = 3
    calls_per_date: int = 400
    kills: int = 5
    rounds: int = 12
    server_error: float = 0.05
    cut_off: float = 0.03
    reset: float = 0.03
    not_ready: float = 0.05
    html: float = 0.02
    throttled: float = 0.03
    token_seconds: float = 20.0
    token_deaths_s: float = 0.7
    s3: S3Faults = field(default_factory=lambda: S3Faults(slow_down=0.03, dropped=0.01, lost_answer=0.01))

    def faults(self) -> Faults:
        """The source's knobs. HTML and "not ready" pass, as they do at the real source."""
        return Faults(
            seed=self.seed,
            server_error=Where(share=self.server_error, first=1),
            cut_off=Where(share=self.cut_off, first=2),
            reset=Where(share=self.reset, first=2),
            not_yet=Where(share=self.not_ready / 2, first=1),
            still_encoding=Where(share=self.not_ready / 2, first=1),
            html_200=Where(share=self.html, first=1),
            throttled=Where(share=self.throttled, first=1),
            late_links=Where(share=0.02, first=1),
            report_server_error=Where(share=0.5, first=1),
            report_html_200=Where(paths=("agent_segment_metadata/inbound",), first=1),
            token_seconds=self.token_seconds,
        )


@dataclass(slots=True)
class ChaosReport:
    """The result. `held`: with exact bytes.

    `problems` holds a sentence for each thing that is not as promised; empty is the only good.
    """

    recordings: int = 0
    held: int = 0
    size: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    ledger_reads: int = 0
    media_requests: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def run(plan: ChaosPlan, folder: Path, say: Callable[[str], None]) -> ChaosReport:
    """Play `plan` in `folder` until every recording is where it belongs, or the rounds are used up."""
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=back) for back in range(plan.dates + 1, 1, -1)]
    report, started = ChaosReport(), time.monotonic()
    config = SandboxConfig(
        seed=plan.seed,
        same_around=today,
        calls_per_day=(plan.calls_per_date, plan.calls_per_date),
        talk_seconds=(1, 3),
        crossing_zones=(),
        limits=Limits(reports="12/10", exchange="5/10"),
        faults=plan.faults(),
    )
    with (
        RunningSandbox(config, own_process=True) as source,
        LocalS3(folder / "s3") as s3,
        FaultyS3(s3.url, plan.s3) as proxy,
    ):
        variables = _variables(source, s3, proxy, folder)
        truth = truth_of(source, days)
        report.recordings, report.size = len(truth), sum(recording["size"] for recording in truth.values())
        say(f"{len(truth)} recordings over {len(days)} dates, {report.size / 1e6:.0f} MB")
        with environment(variables | s3.environment()), _watched_ledger(days, report):
            with _again_and_again(source.expire_tokens, plan.token_deaths_s, "token-deaths"):
                report.runs = _Play(plan, days, truth, variables, source, proxy, folder, say).run()
            report.held, doubts = prove(days, truth, source, s3)
            report.problems += doubts
        counters = source.counters()
        report.media_requests = _media_requests(source)
        _count_injected(counters, proxy, report)
        report.problems += exceeded(counters)
    report.seconds = time.monotonic() - started
    return report


def _variables(source: RunningSandbox, s3: LocalS3, proxy: FaultyS3, folder: Path) -> dict[str, str]:
    return {
        **{name.upper(): "" for name in Settings.model_fields},
        **source.environment(),
        **s3.environment(),
        "AWS_ENDPOINT_URL_S3": proxy.url,
        "ARCHIVE_BUCKET": s3.bucket,
        "ARCHIVE_START_DATE": "2020-01-01",
        "ARCHIVE_RETRY_MINUTES": "0",
        "RINGCX_LIMIT_REPORTS": "12/10",
        "RINGCX_LIMIT_AUTH": "5/10",
        "DATA_DIR": str(folder / "data"),
        "DAGSTER_HOME": str(folder),
    }


@dataclass(frozen=True, slots=True)
class _Play:
    """The runs, one after the other: the first are killed, one meets a full disk, the others are left alone."""

    plan: ChaosPlan
    days: list[date]
    truth: Truth
    variables: Mapping[str, str]
    source: RunningSandbox
    proxy: FaultyS3
    folder: Path
    say: Callable[[str], None]

    def run(self) -> Counter[str]:
        """How the runs ended, by number."""
        dice = random.Random(self.plan.seed)
        self.folder.joinpath("dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        ends: Counter[str] = Counter()
        full = False
        for number in range(self.plan.rounds * len(self.days)):
            day = self.days[number % len(self.days)]
            worker = self._worker(day)
            if ends["killed"] < self.plan.kills and number % 2:
                ends[worker.killed_after(dice.uniform(2.0, 12.0))] += 1
            elif ends["killed"] < self.plan.kills:
                ends[worker.killed_fetching(self.source, dice.randint(1, self.plan.calls_per_date))] += 1
            elif not full:
                full = True
                ends[worker.with_full_disk(self.proxy)] += 1
            else:
                ends[worker.ended()] += 1
            states = states_of(self.days)
            held = sum(str(state.status) == "archived" for key, state in states.items() if key in self.truth)
            self.say(f"run {number + 1}, {day}: {held} of {len(self.truth)} held")
            if full and held == len(self.truth):
                break
        for day in self.days:  # what another date's run added last is sealed too
            ends[self._worker(day).ended()] += 1
        return ends

    def _worker(self, day: date) -> _Worker:
        return _Worker(day, self.variables, self.folder / "runs.log")


class _Worker:
    """One run of one date in a process of its own."""

    def __init__(self, day: date, variables: Mapping[str, str], log: Path) -> None:
        self._process = _WARM.Process(target=_materialize, args=(day, {**os.environ, **variables}, log))
        self._process.start()

    def killed_after(self, seconds: float) -> str:
        """SIGKILL, unless it was faster."""
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
        return self.ended()

    def killed_fetching(self, source: RunningSandbox, requests: int) -> str:
        """Kill the process after `requests` more requests for recordings, unless it ends first."""
        before = _media_requests(source)
        while self._process.is_alive():
            if _media_requests(source) >= before + requests:
                return self.killed_after(0.0)
            time.sleep(0.05)
        return self.ended()

    def with_full_disk(self, proxy: FaultyS3) -> str:
        """Nothing can be written to the ledger for some seconds of the run, from the first put on."""
        proxy.fill_disk("ledger/")
        while self._process.is_alive() and not proxy.injected["disk full"]:
            time.sleep(0.05)
        self._process.join(3 * _DISK_FULL_S)
        proxy.fill_disk("")
        return self.ended()

    def ended(self) -> str:
        """How it ended, once it has."""
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        if code == -signal.SIGKILL:
            return "killed"
        return "failed" if code else "succeeded"


def _media_requests(source: RunningSandbox) -> int:
    return int(source.counters()["requests"].get("media", 0))


def _materialize(day: date, variables: Mapping[str, str], log: Path) -> None:
    """Run the documented command, as `python -m dagster` does."""
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(_ROOT)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = [*_COMMAND, "--partition", day.isoformat()]
    runpy.run_module("dagster", run_name="__main__")


@contextmanager
def _watched_ledger(days: list[date], report: ChaosReport) -> Iterator[None]:
    """Read the ledger all the time, past the proxy; each reading that fails is a problem."""
    ledger = Environment().stores.ledger

    def read_ledger() -> None:
        report.ledger_reads += 1
        try:
            ledger.states(days)
        except LedgerError as error:
            report.problems.append(f"The ledger could not be read: {error}")

    with _again_and_again(read_ledger, 1.0, "ledger-watch"):
        yield


@contextmanager
def _again_and_again(act: Callable[[], None], every_s: float, name: str) -> Iterator[None]:
    """Repeat it in a thread, with that many seconds between, until the block ends."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(every_s):
            act()

    thread = threading.Thread(target=repeat, name=name)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _count_injected(counters: Mapping[str, Any], proxy: FaultyS3, report: ChaosReport) -> None:
    for name, number in counters["statuses"].items():
        if name.startswith("fault "):
            report.injected[f"source: {name.removeprefix('fault ')}"] += number
    report.injected["source: expired token"] += counters["refused"].get("expired_token", 0)
    for name, number in proxy.injected.items():
        report.injected[f"S3: {name}"] += number
    report.injected["run worker: SIGKILL"] = report.runs["killed"]

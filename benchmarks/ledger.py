"""Reports and ledger, with figures: `python benchmarks/ledger.py [--rows N] [--recordings N] [--dates N]`.

Each line is a process of its own, with Dagster loaded, so that its peak memory is the whole process's. The peer is
`pandas_script.py`. Never fails on time.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import generated
from botocore.awsrequest import AWSPreparedRequest
from dagster import DagsterInstance, build_sensor_context
from front import Front
from machine import describe, peak_mb

from pipelines.archive.bucket import Bucket
from pipelines.archive.client import make_s3_client
from pipelines.calendar import day_bounds
from pipelines.definitions import build_defs, defs
from pipelines.ledger.files import Files, LocalFiles, S3Files
from pipelines.ledger.states import archived
from pipelines.ledger.store import Ledger
from pipelines.ringcx.auth import ApiToken
from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.limits.limiter import RateLimiter
from pipelines.ringcx.links import HostList
from pipelines.ringcx.reports.identity import with_row_identity
from pipelines.ringcx.reports.requests import Period, ReportSource
from pipelines.ringcx.reports.tables import parse_report
from pipelines.settings import Calendar
from pipelines.steps.fetch.fetcher import FLUSH_STATES
from pipelines.steps.link.register_links import AllowedLinks, register_links
from pipelines.steps.pull.reports import pull_report
from sandbox.s3 import LocalS3

DAY = date(2026, 11, 18)
REPORT = "agent_segment_metadata"
PARTS = 150
REQUEST_S = 0.03
_MOST_FOR_PANDAS = 100_000  # a million take it minutes and more memory than the machine has


def now() -> datetime:
    """The present."""
    return datetime.now(UTC)


def pull(folder: str, url: str) -> dict[str, Any]:
    """Ask, parse, compare, append: what the report's asset does, in a process that has Dagster loaded."""
    with tempfile.TemporaryDirectory() as scratch:
        client = SourceClient(limiter=RateLimiter(Path(scratch, "limits.sqlite")), limits={})
        source = ReportSource(client, url, ApiToken(api_url=url, token="token"))
        bounds = day_bounds(DAY, ZoneInfo("UTC"))
        ledger = Ledger(LocalFiles(Path(folder)), clock=now)
        before = _parts(folder)
        started, cpu = time.perf_counter(), time.process_time()
        record = pull_report(
            generated.ACCOUNT,
            report=REPORT,
            day=DAY,
            period=Period(*bounds),
            source=source,
            ledger=ledger,
            run_id="benchmark",
            clock=now,
            log=logging.getLogger("benchmark"),
        )
        figures = _figures(started, cpu)
        client.close()
    return figures | {"new": record.new, "changed": record.changed, "parts": _parts(folder) - before}


def finished(root: str, *checks: str) -> dict[str, Any]:
    """A date of which all is held, run again without its reports: links, recordings, manifest and these checks."""
    logging.disable(logging.INFO)
    os.chdir(root)
    with DagsterInstance.ephemeral() as instance:
        names = ("recording_links", "recordings", "daily_manifest")
        steps = [f"recordings_{check}" for check in checks]
        job = defs().resolve_job_def("archive_day")
        started, cpu = time.perf_counter(), time.process_time()
        result = job.execute_in_process(
            partition_key=str(DAY), instance=instance, op_selection=[*names, *steps], raise_on_error=True
        )
        figures = _figures(started, cpu)
        times = {
            event.step_key: round(event.step_success_data.duration_ms / 1000, 2)
            for event in result.all_events
            if event.is_step_success and event.step_key
        }
        (held,) = result.asset_materializations_for_node("recordings")
    return figures | {"steps": times, "archived_now": held.metadata["archived_now"].value}


def _parts(folder: str) -> int:
    return sum(1 for part in Path(folder, "report_rows", f"report={REPORT}", f"date={DAY}").glob("*.parquet"))


def _figures(started: float, cpu: float) -> dict[str, Any]:
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu": round(time.process_time() - cpu, 2),
        "peak_mb": peak_mb(),
    }


CHILDREN: dict[str, Callable[..., dict[str, Any]]] = {"pull": pull, "finished": finished}


def in_child(name: str, *arguments: str, **environment: str) -> dict[str, Any]:
    """Run one of them by itself."""
    command = [sys.executable, __file__, "--child", name, *arguments]
    return _ran(command, environment)


def _ran(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def reports(rows: int, years: int, folder: Path, say: Callable[[str, dict[str, Any]], None]) -> None:
    """A day's report pulled for the first time, again unchanged, and again with a tenth of it changed."""
    bodies = {
        "first pull": generated.write_report(DAY, rows, folder / "bodies"),
        "changed by a tenth": generated.write_report(DAY, rows, folder / "changed", changed=0.1),
    }
    bodies["unchanged"] = bodies["first pull"]
    for behind in dict.fromkeys((0, years)):
        ledger = folder / f"ledger-{behind}"
        if behind:
            generated.history(Ledger(LocalFiles(ledger), clock=now), DAY, behind)
        for step in ("first pull", "unchanged", "changed by a tenth"):
            source = generated.Source(bodies[step])
            Thread(target=source.serve_forever, daemon=True).start()
            say(f"{rows:,} rows, {step}, {behind} years behind", in_child("pull", str(ledger), source.url))
            source.shutdown()
    if rows <= _MOST_FOR_PANDAS:
        script = str(Path(__file__).with_name("pandas_script.py"))
        for step in ("first pull", "unchanged", "changed by a tenth"):
            say(
                f"{rows:,} rows, {step}: pandas script",
                _ran([sys.executable, script, str(folder), *map(str, bodies[step])], {}),
            )


def finished_day(recordings: int, folder: Path, say: Callable[[str, dict[str, Any]], None]) -> None:
    """Rows, states and objects of a date of which all is held; then its run once more."""
    ledger = Ledger(LocalFiles(folder / "ledger"), clock=now)
    for place, body in enumerate(generated.write_report(DAY, recordings, folder / "bodies")):
        with body.open("rb") as file:
            rows = with_row_identity(REPORT, parse_report(REPORT, file), generated.ACCOUNT)
        at = now() + timedelta(seconds=place)
        ledger.append_rows(REPORT, DAY, rows, account_id=generated.ACCOUNT, pulled_at=at, run_id="benchmark")
    ledger.append_pull(generated.a_pull(DAY, now()))
    allowed = AllowedLinks(HostList(["*.vacd.biz"]))
    register_links(ledger, DAY, Calendar(archive_timezone="UTC"), allowed=allowed, now=now(), run_id="benchmark")
    with LocalS3(folder / "s3") as s3:
        lines = []
        for state in ledger.states([DAY]).values():
            key = f"recordings/date={state.date}/account_id={state.account_id}/layout=stereo/{state.uii}.WAV"
            facts: dict[str, Any] = {"key": key, "size": 4, "sha256": "0" * 64, "duration_s": None, "etag": None}
            lines.append(archived(state, **facts, version_id=None, warnings=(), now=now(), run_id="benchmark"))
        for start in range(0, len(lines), FLUSH_STATES):
            ledger.append_states(lines[start : start + FLUSH_STATES])
        front = Front(s3.url, sorted(str(line.key) for line in lines), 4)
        settings = {
            "ARCHIVE_BUCKET": s3.bucket,
            "ARCHIVE_START_DATE": f"{DAY}",
            "LEDGER_URL": str(folder / "ledger"),
            "RINGCX_ACCOUNT_IDS": generated.ACCOUNT,
            "RINGCX_API_TOKEN": "token",
            "DATA_DIR": str(folder),
            **s3.environment(),
            "AWS_ENDPOINT_URL_S3": front.url,
        }
        checks = ("audio_is_true", "mono_and_stereo_agree", "every_recording_is_accounted_for")
        for _ in ("the first seals", "the second finds it sealed"):
            front.pages = 0
            found = in_child("finished", str(folder), *checks, **settings)
        front.shutdown()
        steps = found.pop("steps")
        say(f"finished day of {recordings:,} recordings", found | {"pages_listed": front.pages})
        for name, seconds in steps.items():
            print(f"    {name:<60}{seconds:>8.2f}", flush=True)


def parts(folder: Path, say: Callable[[str, dict[str, Any]], None]) -> None:
    """A date of many small parts, read from a folder and from S3."""
    with LocalS3(folder / "parts-s3") as s3:
        os.environ |= s3.environment()
        client = make_s3_client(max_connections=16)
        requests = Counter[str]()
        client.meta.events.register("before-send.s3", lambda request, **_: requests.update([request.method]))
        places: dict[str, Files] = {
            "folder": LocalFiles(folder / "parts"),
            "S3": S3Files(client, Bucket(client, s3.bucket, "").name, "ledger"),
        }
        for where, files in places.items():
            ledger = Ledger(files, clock=now)
            for number in range(PARTS):
                ledger.append_states(generated.a_state(f"{number}-{index}", DAY, now()) for index in range(20))
            requests.clear()
            started, cpu = time.perf_counter(), time.process_time()
            read = len(ledger.states([DAY]))
            # The peak is this process's, which has generated all that stands above.
            figures = _figures(started, cpu) | {"peak_mb": "", "recordings": read, "requests": requests.total()}
            say(f"{PARTS} small parts, {where}", figures)


def ticks(dates: int, folder: Path, say: Callable[[str, dict[str, Any]], None]) -> None:
    """Ticks of the sensor of pending recordings over many dates, from the first one to one that finds nothing new."""
    with LocalS3(folder / "ticks-s3") as s3, DagsterInstance.ephemeral() as instance:
        os.environ |= s3.environment()
        client = make_s3_client(max_connections=16)
        files = S3Files(client, Bucket(client, s3.bucket, "").name, "ledger")
        days = [DAY - timedelta(days=before) for before in range(dates)]

        def write(day: date) -> None:
            written = datetime(day.year, day.month, day.day, tzinfo=UTC)
            Ledger(files, clock=lambda: written).append_states([generated.a_state(f"{day}", day, now())])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, days))
        ledger = Ledger(files, clock=now)
        requests = Counter[str]()

        def slow(request: AWSPreparedRequest, **_: object) -> None:
            requests.update([request.method])
            time.sleep(REQUEST_S)

        client.meta.events.register("before-send.s3", slow)
        repository = build_defs(calendar=Calendar(archive_start_date=days[-1])).get_repository_def()
        sensor = repository.get_sensor_def("pending_recordings")
        resources = {"environment": SimpleNamespace(clock=now), "ledger": SimpleNamespace(open=lambda: ledger)}
        cursor, at_end = "{}", False
        for number in count(1):
            requests.clear()
            was_at_end, started, cpu = at_end, time.perf_counter(), time.process_time()
            with build_sensor_context(instance, cursor, repository_def=repository, resources=resources) as context:
                cursor = sensor.evaluate_tick(context).cursor or ""
            # The peak is this process's, which has generated all that stands above.
            figures = _figures(started, cpu) | {"peak_mb": "", "requests": requests.total()}
            kept = json.loads(cursor)
            say(f"sensor tick {number}, {dates:,} dates", figures | {"dates known": len(kept["due"])})
            at_end = not kept["left"]
            if was_at_end:
                break


def main() -> int:
    """Run it; returns the exit code."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(CHILDREN[sys.argv[2]](*sys.argv[3:])))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large report; the small one has a tenth")
    parser.add_argument("--recordings", type=int, default=100_000, help="of the finished day; 0 leaves it out")
    parser.add_argument("--years", type=int, default=5, help="of ledger behind the day")
    parser.add_argument("--dates", type=int, default=2500, help="that a sensor looks at; 0 leaves it out")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []

    def say(what: str, figures: dict[str, Any]) -> None:
        found.append({"what": what, **figures})
        more = ", ".join(f"{name} {value}" for name, value in figures.items() if name not in _SHOWN)
        print(f"{what:<56}" + "".join(f"{figures[name]:>10}" for name in _SHOWN) + f"  {more}", flush=True)

    machine = describe()
    print(f"{machine}\n\n{'':<56}" + "".join(f"{name:>10}" for name in _SHOWN))
    with tempfile.TemporaryDirectory(prefix="ledger-") as temporary:
        folder = Path(temporary)
        reports(options.rows // 10, options.years, folder / "small", say)
        reports(options.rows, options.years, folder / "large", say)
        parts(folder, say)
        if options.dates:
            ticks(options.dates, folder, say)
        if options.recordings:
            finished_day(options.recordings, folder / "finished", say)
    for line, ratio in _ratios(found):
        print(f"{line:<56}{ratio:>9.1f}x as fast as the pandas script")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "figures": found}, indent=1))
    return 0


_SHOWN = ("seconds", "cpu", "peak_mb")


def _ratios(found: list[dict[str, Any]]) -> list[tuple[str, float]]:
    by_name = {figure["what"]: figure["seconds"] for figure in found}
    pairs = [(name, name.removesuffix(": pandas script")) for name in by_name if name.endswith(": pandas script")]
    return [(own, by_name[name] / by_name[f"{own}, 0 years behind"]) for name, own in pairs]


if __name__ == "__main__":
    sys.exit(main())

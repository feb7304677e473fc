"""What a date costs in requests to S3, bytes and CPU: `python benchmarks/date_costs.py 2>/dev/null`.

One date of few calls and one of many are archived, and archived again, through Dagster into a moto S3, which honours
create-only puts as Amazon does; the requests are those that the server counts. The difference of the two dates is what
a recording costs, the rest what a date costs. A date between two archived ones costs more, since its run may change
theirs. The recordings are small (16 to 32 KB): larger ones cost more CPU.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from dagster import DagsterInstance

from pipelines.archive.client import make_s3_client
from pipelines.definitions import defs
from pipelines.settings import Settings
from sandbox.config import Limits, SandboxConfig
from sandbox.server import RunningSandbox

KINDS = ("PUT", "LIST", "GET", "HEAD")
BUCKET = "archive"
Runs = tuple[tuple[Counter[str], float], tuple[Counter[str], float]]
_REQUEST = re.compile(r'"([A-Z]+) (\S+) HTTP/1\.1" \S*(\d{3})')


@contextmanager
def moto(log: Path) -> Iterator[str]:
    """A moto S3 that notes each request in `log`."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def counted(log: Path, since: int) -> tuple[Counter[str], int]:
    """Requests by kind from byte `since` of the log on, and where it ends now."""
    text = log.read_text()
    found: Counter[str] = Counter()
    for method, target, _ in _REQUEST.findall(text[since:]):
        found["LIST" if method == "GET" and "list-type=2" in target else method] += 1
    return found, len(text)


def archive(day: date) -> float:
    """One run of one date, in this process; its CPU seconds."""
    started = time.process_time()
    with DagsterInstance.ephemeral() as instance:
        job = defs().resolve_job_def("archive_day")
        if not job.execute_in_process(partition_key=f"{day}", instance=instance).success:
            raise SystemExit(f"The run of {day} failed.")
    return time.process_time() - started


def measure(calls: int, log: Path, folder: Path, *, prefix: str = "", between: bool = False) -> tuple[int, Runs]:
    """Return the recordings of a date with that many calls, and what its first and second run cost; `between`: with the
    dates before and after it archived.
    """
    config = SandboxConfig(
        calls_per_day=(calls, calls),
        talk_seconds=(1, 2),
        crossing_zones=(),
        limits=Limits(reports="none", exchange="none"),
    )
    day = datetime.now(UTC).date() - timedelta(days=3)
    with RunningSandbox(config, own_process=True) as source:
        os.environ.update(source.environment())
        neighbours = [day - timedelta(days=1), day + timedelta(days=1)] if between else []
        os.environ |= {"ARCHIVE_PREFIX": prefix or f"calls-{calls}/", "DATA_DIR": str(folder)}
        os.environ["ARCHIVE_START_DATE"] = f"{min([day, *neighbours])}"
        for neighbour in neighbours:
            archive(neighbour)
        _, at = counted(log, 0)
        first_cpu = archive(day)
        first, at = counted(log, at)
        second_cpu = archive(day)
        second, _ = counted(log, at)
        return len(source.truth(f"{day}")), ((first, first_cpu), (second, second_cpu))


def main() -> int:
    """Print the table; returns the exit code."""
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)
    with tempfile.TemporaryDirectory() as name, moto(Path(name) / "log") as url:
        folder = Path(name)
        os.chdir(folder)
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": url, "ARCHIVE_BUCKET": BUCKET, "RINGCX_LIMIT_REPORTS": "none",
            "RINGCX_LIMIT_AUTH": "none",
        }  # fmt: skip
        make_s3_client(max_connections=2).create_bucket(Bucket=BUCKET)
        measure(2, folder / "log", folder)  # what is done once a process, not once a date
        few, few_runs = measure(20, folder / "log", folder)
        many, many_runs = measure(120, folder / "log", folder)
        between, between_runs = measure(20, folder / "log", folder, prefix="between/", between=True)
        sizes = sizes_without_audio(many, few)
    print(f"\n{'requests':<30}" + "".join(f"{kind:>8}" for kind in KINDS) + f"{'CPU s':>8}")
    for which, run in enumerate(("first run", "second run")):
        (few_requests, few_cpu), (many_requests, many_cpu) = few_runs[which], many_runs[which]
        row(f"{run}, {few} recordings", few_requests, few_cpu)
        row(f"{run}, {many} recordings", many_requests, many_cpu)
        slope = {kind: (many_requests[kind] - few_requests[kind]) / (many - few) for kind in KINDS}
        cpu = (many_cpu - few_cpu) / (many - few)
        row(f"{run}, 1000 recordings", {kind: round(1000 * slope[kind]) for kind in KINDS}, 1000 * cpu)
        for label, recordings, (requests, seconds) in (
            ("one more date", few, few_runs[which]),
            ("between two others", between, between_runs[which]),
        ):
            rest = {kind: round(requests[kind] - recordings * slope[kind]) for kind in KINDS}
            row(f"{run}, {label}", rest, seconds - recordings * cpu)
    print(f"\n{'bytes next to the audio':<30}{'a recording':>12}{'a date':>10}")
    for name, size in sorted(sizes.items()):
        print(f"{name:<30}{size[0]:>12.0f}{size[1]:>10.0f}")
    return 0


def row(label: str, requests: Mapping[str, int], cpu: float) -> None:
    """A line of the table."""
    print(f"{label:<30}" + "".join(f"{requests[kind]:>8}" for kind in KINDS) + f"{cpu:>8.1f}")


def sizes_without_audio(many: int, few: int) -> dict[str, tuple[float, float]]:
    """Bytes of each prefix but the recordings', both runs: for a recording, and for one more date."""
    pages = make_s3_client(max_connections=2).get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    sizes: Counter[tuple[str, str]] = Counter()
    for item in (listed for page in pages for listed in page.get("Contents", ())):
        archive, what = item["Key"].split("/")[:2]
        sizes[archive, what] += item["Size"]
    found = {}
    for what in {prefix for _, prefix in sizes} - {"recordings"}:
        slope = (sizes["calls-120", what] - sizes["calls-20", what]) / (many - few)
        found[what] = (slope, sizes["calls-20", what] - few * slope)
    return found


if __name__ == "__main__":
    sys.exit(main())

"""What a date costs in S3 requests, as the server counts them: `python benchmarks/s3_requests.py 2>/dev/null`.

One date of few calls and one of many are archived, and archived again, through Dagster into a moto S3, which honours
create-only puts as Amazon does. The difference of the two dates is what a recording costs, the rest what a date costs.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from dagster import DagsterInstance

from pipelines.archive.bucket import make_s3_client
from pipelines.definitions import build_defs
from pipelines.settings import Settings
from sandbox.config import Limits, SandboxConfig
from sandbox.server import RunningSandbox

KINDS = ("PUT", "LIST", "GET", "HEAD")
BUCKET = "archive"
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


def archive(day: date) -> None:
    """One run of one date, in this process."""
    with DagsterInstance.ephemeral() as instance:
        job = build_defs().resolve_job_def("archive_day")
        if not job.execute_in_process(partition_key=f"{day}", instance=instance).success:
            raise SystemExit(f"The run of {day} failed.")


def measure(calls: int, log: Path, folder: Path) -> tuple[int, Counter[str], Counter[str]]:
    """Recordings of a date of so many calls, requests of its first run, requests of its second."""
    config = SandboxConfig(
        calls_per_day=(calls, calls),
        talk_seconds=(1, 2),
        crossing_zones=(),
        limits=Limits(reports="none", exchange="none"),
    )
    day = datetime.now(UTC).date() - timedelta(days=3)
    with RunningSandbox(config, own_process=True) as source:
        os.environ.update(source.environment())
        os.environ |= {"ARCHIVE_PREFIX": f"calls-{calls}/", "DATA_DIR": str(folder), "ARCHIVE_START_DATE": f"{day}"}
        _, at = counted(log, 0)
        archive(day)
        first, at = counted(log, at)
        archive(day)
        second, _ = counted(log, at)
        return len(source.truth(f"{day}")), first, second


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
        few, few_first, few_again = measure(20, folder / "log", folder)
        many, many_first, many_again = measure(120, folder / "log", folder)
    print(f"\n{'requests':<30}" + "".join(f"{kind:>8}" for kind in KINDS))
    for label, requests in (
        (f"first run, {few} recordings", few_first),
        (f"first run, {many} recordings", many_first),
        (f"second run, {few} recordings", few_again),
        (f"second run, {many} recordings", many_again),
    ):
        print(f"{label:<30}" + "".join(f"{requests[kind]:>8}" for kind in KINDS))
    slope = {kind: (many_first[kind] - few_first[kind]) / (many - few) for kind in KINDS}
    print(f"{'a recording':<30}" + "".join(f"{slope[kind]:>8.2f}" for kind in KINDS))
    print(f"{'a date besides, first run':<30}" + "".join(f"{few_first[k] - few * slope[k]:>8.0f}" for k in KINDS))
    print(f"{'other kinds':<30}{sorted(set(many_first) - set(KINDS))!s:>8}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

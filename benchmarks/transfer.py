"""How fast recordings move from the source into S3, ours next to movers that verify nothing.

    python benchmarks/transfer.py                                   320 KB and 2.9 MB, plain HTTP, no latency
    python benchmarks/transfer.py --latency-ms 60 --tls
    python benchmarks/transfer.py --sizes 16384:2000,320000:1000,2900000:300
    python benchmarks/transfer.py --huge                            one recording of 1 GB among small ones

Ours is the step that Dagster's asset runs, with everything on: the ledger read and written, the limiter asked, SHA-256,
WAV and silence check, create-only put, proof of arrival. The peers are `rclone copyurl --urls` with 16 transfers, the
libraries that ours is made of and nothing else (16 threads, urllib3, SHA-256, a create-only `put_object` of boto3), and
the script of the tutorials (`httpx.get`, `put_object`, one after the other). All run in turn, several times, against
the same two lean servers (`servers.py`), each in processes of its own; the figures are medians. CPU is the client's
alone: at ours from the first look into the ledger to the last line written, at rclone without its start.

Never fails on time; fails when a recording did not arrive as it was sent.
"""

import argparse
import base64
import contextlib
import csv
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from machine import describe
from servers import sha256_of

HERE = Path(__file__).parent
DAY = date(2026, 11, 20)
BUCKET = "bench"
THREADS = 16
SLOW = 40  # the tutorials' script gets no more recordings than this


@dataclass(frozen=True)
class Case:
    """What is moved: (size, number) of recordings, and through what."""

    mix: tuple[tuple[int, int], ...]
    latency_ms: float
    tls: bool

    @property
    def recordings(self) -> list[tuple[int, int]]:
        """Number and size of each, the sizes spread over the whole."""
        total = sum(count for _, count in self.mix)
        spread = sorted((place / count, size) for size, count in self.mix for place in range(count))
        return list(zip(range(total), (size for _, size in spread), strict=True))

    def __str__(self) -> str:
        sizes = ", ".join(f"{count} × {size / 1000:g} KB" for size, count in self.mix)
        return f"{sizes}; {self.latency_ms:g} ms added; {'TLS' if self.tls else 'plain HTTP'}"


@dataclass(frozen=True)
class Sample:
    """One run of one mover."""

    recordings: int
    size: int
    seconds: float
    cpu_s: float
    peak_mb: float

    @property
    def figures(self) -> dict[str, float]:
        """By the names that the table shows."""
        return {
            "recordings/s": self.recordings / self.seconds,
            "MB/s": self.size / self.seconds / 1e6,
            "CPU s/GB": self.cpu_s / self.size * 1e9,
            "CPU ms/recording": self.cpu_s / self.recordings * 1e3,
            "peak MB": self.peak_mb,
        }


# --- the movers


def ours(urls: dict[str, str], recordings: list[tuple[int, int]], folder: Path, run: str) -> Sample:
    """The archive's own step, in a process of its own."""
    environment = {
        "RINGCX_ACCOUNT_IDS": "1",
        "RINGCX_API_TOKEN": "none",
        "RINGCX_MEDIA_HOSTS": "127.0.0.1",
        "RINGCX_LIMIT_MEDIA": "none",
        "ARCHIVE_BUCKET": BUCKET,
        "ARCHIVE_PREFIX": f"{run}/",
        "LEDGER_URL": str(folder / run),
        "DATA_DIR": str(folder / f"{run}-data"),
        "AWS_ENDPOINT_URL_S3": urls["sink"],
    }
    job = {"source": urls["source"], "recordings": recordings}
    _run([sys.executable, __file__, "_pending"], environment, job)
    moved = {"recordings": len(recordings), "size": sum(size for _, size in recordings)}
    return _sampled([sys.executable, __file__, "_ours"], environment, moved)


def script(urls: dict[str, str], recordings: list[tuple[int, int]], _: Path, run: str) -> Sample:
    """What a tutorial shows, in a process of its own."""
    job = {"source": urls["source"], "recordings": recordings[:SLOW], "run": run}
    return _sampled([sys.executable, __file__, "_script"], {"AWS_ENDPOINT_URL_S3": urls["sink"]}, job)


def libraries(urls: dict[str, str], recordings: list[tuple[int, int]], _: Path, run: str) -> Sample:
    """The libraries alone, in a process of its own: what our checks cost is the difference."""
    job = {"source": urls["source"], "recordings": recordings, "run": run}
    return _sampled([sys.executable, __file__, "_libraries"], {"AWS_ENDPOINT_URL_S3": urls["sink"]}, job)


def rclone(urls: dict[str, str], recordings: list[tuple[int, int]], folder: Path, run: str) -> Sample:
    """`rclone copyurl --urls` with 16 transfers."""
    started_s, started_cpu = min(_rclone(urls, [], folder, run)[:2] for _ in range(3))
    seconds, cpu_s, peak = _rclone(urls, recordings, folder, run)
    size = sum(size for _, size in recordings)
    return Sample(len(recordings), size, seconds - started_s, cpu_s - started_cpu, peak)


def _rclone(
    urls: dict[str, str], recordings: list[tuple[int, int]], folder: Path, run: str
) -> tuple[float, float, float]:
    listed = folder / f"{run}.csv"
    with listed.open("w") as file:
        csv.writer(file).writerows([_link(urls["source"], *recording), _name(*recording)] for recording in recordings)
    environment = {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_SINK_TYPE": "s3",
        "RCLONE_CONFIG_SINK_PROVIDER": "Other",
        "RCLONE_CONFIG_SINK_ENDPOINT": urls["sink"],
        "RCLONE_CONFIG_SINK_ENV_AUTH": "true",
        "RCLONE_CONFIG_SINK_NO_CHECK_BUCKET": "true",
    }
    command = [
        str(Path(sys.executable).parent / "rclone"), "copyurl", "--urls", str(listed), f"sink:{BUCKET}/{run}",
        "--transfers", str(THREADS), "--log-level", "ERROR", "--ca-cert", os.environ.get("SSL_CERT_FILE", ""),
    ]  # fmt: skip
    if "SSL_CERT_FILE" not in os.environ:
        command = command[:-2]
    began = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, **environment})
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"rclone ended with {status}; its message is above.")
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def _sampled(command: list[str], environment: dict[str, str], job: dict[str, Any]) -> Sample:
    return Sample(**json.loads(_run(command, environment, job).splitlines()[-1]))


def _run(command: list[str], environment: dict[str, str], job: dict[str, Any]) -> str:
    ended = subprocess.run(
        command,
        env={**os.environ, **environment},
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=1800,
    )
    return ended.stdout


def _link(source: str, number: int, size: int) -> str:
    return f"{source}/api/v1/calls/recordings/?v=1&accountId=1&file=1/{_name(number, size)}"


def _name(number: int, size: int) -> str:
    return f"{number}-{size}.WAV"


@contextlib.contextmanager
def _measured(recordings: int, size: int) -> Iterator[None]:
    """Print a sample of this process and of the children that it has from now on as JSON."""
    began, before, children = time.monotonic(), _cpu(), _peak(resource.RUSAGE_CHILDREN)
    yield
    seconds, cpu_s = time.monotonic() - began, _cpu() - before
    since = _peak(resource.RUSAGE_CHILDREN)  # one of an import's counts what it shares with its parent
    peak = _peak(resource.RUSAGE_SELF) + (since if since > children else 0)
    print(json.dumps(asdict(Sample(recordings, size, seconds, cpu_s, peak))))


def _peak(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def run_pending() -> None:
    """In a process of its own: give the ledger the recordings as pending."""
    from pipelines.ledger.states import RecordingState, Status  # noqa: PLC0415 - here only
    from pipelines.orchestration.environment import Environment  # noqa: PLC0415

    job = json.loads(sys.stdin.read())
    found_at = datetime.now(UTC) - timedelta(hours=1)
    Environment().stores.ledger.append_states(
        RecordingState(
            recording_id=f"1/1/{_name(number, size)}",
            account_id="1",
            uii=f"{number:030}",
            layout="mono",
            source="global_call_type_detail",
            date=DAY,
            status=Status.pending,
            next_attempt_at=found_at,
            run_id="seed",
            written_at=found_at,
            link=_link(job["source"], number, size),
            found_on=DAY,
            started_at=found_at,
            expected_duration_s=size / 16000,
            first_seen_at=found_at,
        )
        for number, size in job["recordings"]
    )


def run_ours() -> None:
    """Inside the process: do what the asset `recordings` does."""
    from pipelines.orchestration.environment import Environment  # noqa: PLC0415
    from pipelines.orchestration.source import Source  # noqa: PLC0415
    from pipelines.process_tuning import tune_allocator, tune_gc  # noqa: PLC0415 - here only
    from pipelines.steps.fetch.fetcher import Fetcher  # noqa: PLC0415
    from pipelines.steps.fetch.work_queue import work_queue  # noqa: PLC0415
    from pipelines.steps.link.register_links import matched_recordings  # noqa: PLC0415

    tune_allocator()
    tune_gc()
    job = json.loads(sys.stdin.read())
    environment = Environment()
    source = Source(environment, notify=lambda _: None)
    bucket, ledger = environment.stores.bucket, environment.stores.ledger
    attempt, concurrency = source.attempt(bucket), environment.settings.archive_concurrency  # made before it counts
    with _measured(job["recordings"], job["size"]):
        known = matched_recordings(ledger, DAY, (), now=environment.clock(), run_id="bench")
        queue = work_queue(known, source.allowed, bucket.prefix, now=environment.clock(), run_id="bench")
        result = Fetcher(attempt, ledger, concurrency, "bench", lambda _: None).run(queue)
    if result.archived != job["recordings"]:
        reasons = {state.reason for state in ledger.states([DAY]).values()}
        raise SystemExit(f"Only {result.archived} of {job['recordings']} recordings were archived: {reasons}")
    source.close()


def run_script() -> None:
    """Inside the process: the tutorials' way."""
    import boto3  # noqa: PLC0415 - here only
    import httpx  # noqa: PLC0415

    job = json.loads(sys.stdin.read())
    with _measured(len(job["recordings"]), sum(size for _, size in job["recordings"])):
        s3 = boto3.client("s3")
        for number, size in job["recordings"]:
            answer = httpx.get(_link(job["source"], number, size), timeout=60)
            answer.raise_for_status()
            s3.put_object(Bucket=BUCKET, Key=f"{job['run']}/{_name(number, size)}", Body=answer.content)


def run_libraries() -> None:
    """Inside the process: urllib3 and boto3 with 16 threads."""
    import boto3  # noqa: PLC0415 - here only
    import urllib3  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    job = json.loads(sys.stdin.read())
    options: dict[str, Any] = {"payload_signing_enabled": False}
    config = Config(request_checksum_calculation="when_required", s3=options, max_pool_connections=THREADS)
    s3 = boto3.client("s3", config=config)
    # boto3 reads AWS_CA_BUNDLE by itself, urllib3 nothing.
    http = urllib3.PoolManager(maxsize=THREADS, ca_certs=os.environ.get("SSL_CERT_FILE"))

    def move(recording: tuple[int, int]) -> None:
        number, size = recording
        answer = http.request("GET", _link(job["source"], number, size), preload_content=False)
        blocks, sha256 = [], hashlib.sha256()
        while block := answer.read(1 << 20):
            sha256.update(block)
            blocks.append(block)
        answer.release_conn()
        s3.put_object(
            Bucket=BUCKET,
            Key=f"{job['run']}/{_name(number, size)}",
            Body=b"".join(blocks),
            ChecksumSHA256=base64.b64encode(sha256.digest()).decode(),
            IfNoneMatch="*",
        )

    with (
        _measured(len(job["recordings"]), sum(size for _, size in job["recordings"])),
        ThreadPoolExecutor(THREADS) as pool,
    ):
        list(pool.map(move, job["recordings"]))


# --- the servers


@contextlib.contextmanager
def serving(case: Case, folder: Path) -> Iterator[dict[str, str]]:
    """Source and sink, while they are needed: their addresses."""
    options = ["--latency-ms", str(case.latency_ms)]
    if case.tls:
        options += ["--certificate", str(certificate(folder))]
        os.environ |= {"SSL_CERT_FILE": str(folder / "ca.pem"), "AWS_CA_BUNDLE": str(folder / "ca.pem")}
    with contextlib.ExitStack() as stack:
        urls = {}
        for role in ("source", "sink"):
            process = subprocess.Popen(
                [sys.executable, str(HERE / "servers.py"), role, *options],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.terminate)
            port = process.stdout.readline().strip() if process.stdout else ""
            urls[role] = f"http{'s' if case.tls else ''}://127.0.0.1:{port}"
        yield urls


def certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1, valid for a day; return it with its key. Its issuer is in `ca.pem`."""
    from cryptography import x509  # noqa: PLC0415 - needed for TLS only
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in ("Benchmark CA", "127.0.0.1")]
    now = datetime.now(UTC)
    extensions: list[x509.ExtensionType] = [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
    ]
    made = [
        x509.CertificateBuilder()
        .subject_name(names[n])
        .issuer_name(names[0])
        .public_key(keys[n].public_key())
        .serial_number(n + 1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(extensions[n], critical=True)
        .sign(keys[0], hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        for n in range(2)
    ]
    (folder / "ca.pem").write_bytes(made[0])
    private = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(made[1] + private)
    return folder / "server.pem"


def require_arrived(urls: dict[str, str], run: str, recordings: list[tuple[int, int]]) -> None:
    """Ask the sink what it holds: every recording, of its size, and a sample of them by hash."""
    import ssl  # noqa: PLC0415 - needed for TLS only

    cafile = os.environ.get("SSL_CERT_FILE")
    context = ssl.create_default_context(cafile=cafile) if urls["sink"].startswith("https") else None
    with urllib.request.urlopen(f"{urls['sink']}/{BUCKET}/_stored", context=context) as answer:
        stored = json.load(answer)
    if stored["uploads"]:
        raise SystemExit(f"{stored['uploads']} multipart uploads were left open.")
    held = {key.rpartition("/")[2]: it for key, it in stored["objects"].items() if key.startswith(f"{run}/")}
    for place, (number, size) in enumerate(recordings):
        found_size, sha256 = held.get(_name(number, size), (None, None))
        known = place % (len(recordings) // 10 + 1) == 0 and size < 100_000_000
        if found_size != size or (known and sha256 != sha256_of(number, size)):
            raise SystemExit(f"{_name(number, size)} of {run} did not arrive as it was sent.")


# --- the comparison

MOVERS: dict[str, Callable[..., Sample]] = {"ours": ours, "rclone": rclone, "libraries": libraries, "script": script}


def compare(case: Case, rounds: int, movers: list[str]) -> dict[str, dict[str, float]]:
    """Run the movers in turn, that many times; return the medians of their figures."""
    samples: dict[str, list[Sample]] = {name: [] for name in movers}
    with tempfile.TemporaryDirectory(prefix="transfer-") as made, serving(case, Path(made)) as urls:
        for turn in range(rounds):
            for name in movers if turn % 2 == 0 else reversed(movers):
                if name == "script" and turn:
                    continue  # slow and steady: once is enough
                recordings = case.recordings
                run = f"{name}-{turn}"
                samples[name].append(MOVERS[name](urls, recordings, Path(made), run))
                require_arrived(urls, run, recordings[: samples[name][-1].recordings])
    return {
        name: {key: statistics.median(sample.figures[key] for sample in runs) for key in runs[0].figures}
        for name, runs in samples.items()
    }


def show(case: Case, figures: dict[str, dict[str, float]]) -> None:
    """Print the table of one case, and how far it is from the goals."""
    print(f"\n{case}")
    columns = list(figures["ours"])
    print(f"{'':<28}" + "".join(f"{column:>18}" for column in columns))
    for name, row in figures.items():
        print(f"{name:<28}" + "".join(f"{row[column]:>18.2f}" for column in columns))
    mine = figures["ours"]
    for name, other in figures.items():
        if name != "ours":
            print(
                f"ours / {name:<21}{mine['recordings/s'] / other['recordings/s']:>18.2f}{'':>18}"
                f"{mine['CPU s/GB'] / other['CPU s/GB']:>18.2f}"
            )


def mix_of(text: str) -> tuple[tuple[int, int], ...]:
    """Read `size:count,size:count`."""
    return tuple((int(size), int(count)) for size, _, count in (part.partition(":") for part in text.split(",")))


def main() -> None:
    """Run what is asked for."""
    inside = {"_pending": run_pending, "_ours": run_ours, "_script": run_script, "_libraries": run_libraries}
    if len(sys.argv) > 1 and sys.argv[1] in inside:
        return inside[sys.argv[1]]()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=mix_of, action="append", help="bytes:count,bytes:count; may be given again")
    parser.add_argument("--latency-ms", type=float, default=0, help="before every answer of source and sink")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--movers", default="ours,rclone,libraries,script")
    parser.add_argument("--huge", action="store_true", help="one recording of 1 GB among twenty small ones, ours alone")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "BENCHMARKKEYID123456",
        "AWS_SECRET_ACCESS_KEY": "benchmarksecret0123456789benchmarksecret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    mixes = options.sizes or ([((320_000, 1500),), ((2_900_000, 300),)])
    movers = options.movers.split(",")
    if options.huge:
        mixes, movers = [((320_000, 20), (1_000_000_000, 1))], ["ours"]
    print(describe())
    found = []
    for mix in mixes:
        case = Case(mix, options.latency_ms, options.tls)
        figures = compare(case, options.rounds, movers)
        show(case, figures)
        found.append({"case": str(case), **asdict(case), "figures": figures})
    if options.json:
        options.json.write_text(json.dumps({"machine": describe(), "cases": found}, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()

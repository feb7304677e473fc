"""How much of a limit is used: `python benchmarks/limits.py [--seconds 180] [--limit 120/60] [--json FILE]`.

One and four processes of sixteen threads ask a counting server as fast as they are permitted to, with the limiter's
store in SQLite and in PostgreSQL; next to them the naive way, in which each process sleeps between its requests. The
server sees the requests as the source would. For each: how many the limit allows, how many came, the share, and by how
many the fullest window was over, whatever its alignment. Fails only if the limiter let one too many through, never on
time. All run side by side, each started some seconds after the other.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import httpx

from pipelines.ringcx.errors import Stopped
from pipelines.ringcx.http.client import SourceClient
from pipelines.ringcx.limits.limiter import Rate, RateLimiter, parse_rates
from sandbox.postgres import LocalPostgres

THREADS = 16
STAGGER_S = 7.0  # their bursts must not fall together: it is the limiter that is measured, not two busy cores
NAIVE = "sleeping"


@dataclass(frozen=True)
class Result:
    """What the server saw of one way.

    `share` is of what the limit allows in that time, whose first window may begin full. `sustained` is the rate in the
    long run: the window over the mean time between a request and the one that took its place.
    """

    way: str
    processes: int
    seconds: float
    allowed: int
    sent: int
    share: float
    sustained: float
    over: int
    shortest_window_s: float
    client_cpu_s: float


class CountingServer:
    """Notes when each request arrives, and answers it after `latency_s`."""

    def __init__(self, latency_s: float) -> None:
        self.arrivals: list[float] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(handler) -> None:  # noqa: N805 - the name is the library's, and `self` the server
                self.arrivals.append(time.monotonic())
                time.sleep(latency_s)
                handler.send_response(200)
                handler.send_header("Content-Length", "0")
                handler.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def work(where: str, url: str, rates: str, seconds: float, processes: int) -> None:
    """One process: asks until the time is over, then prints its CPU seconds."""
    if where == NAIVE:
        (rate,) = parse_rates(rates)
        end = time.monotonic() + seconds
        with httpx.Client() as client:
            while time.monotonic() < end:
                client.get(url)
                time.sleep(processes * rate.seconds / rate.limit)
    else:
        stop = threading.Event()
        limiter = RateLimiter(where if "://" in where else Path(where))

        def ask(client: SourceClient) -> None:
            try:
                while True:
                    with client.stream("GET", url, limit="media", account_id="1") as response:
                        response.read()
            except Stopped:
                return

        limits: dict[str, Sequence[Rate]] = {"media": parse_rates(rates)}
        with SourceClient(limiter=limiter, limits=limits, stop=stop, max_connections=THREADS) as client:
            threads = [threading.Thread(target=ask, args=(client,)) for _ in range(THREADS)]
            for thread in threads:
                thread.start()
            time.sleep(seconds)
            stop.set()
            for thread in threads:
                thread.join()
        limiter.close()
    print(time.process_time(), flush=True)


def measure(way: str, where: str, processes: int, options: argparse.Namespace) -> Result:
    """Start the processes, wait for them, and judge what the server saw."""
    (rate,) = parse_rates(options.limit)
    with CountingServer(options.latency) as server:
        command = [sys.executable, __file__, "--limit", options.limit, "--worker", server.url]
        environment = {**os.environ, "LIMITER_AT": where}  # not an argument: a database's address holds a password
        # A second more than is counted, since counting begins with the first request.
        arguments = ["--seconds", str(options.seconds + 1), "--processes", str(processes)]
        workers = [
            subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(processes)
        ]
        printed = [worker.communicate(timeout=options.seconds + 120)[0] for worker in workers]
        if any(worker.returncode for worker in workers):
            raise RuntimeError(f"A worker of {way} failed.")
        cpu_s = sum(map(float, printed))
        return judge(way, processes, rate, sorted(server.arrivals), seconds=options.seconds, cpu_s=cpu_s)


def judge(way: str, processes: int, rate: Rate, arrivals: list[float], *, seconds: float, cpu_s: float) -> Result:
    """Count, and look at every window that begins with a request: no other alignment can hold more."""
    sent = sum(at < arrivals[0] + seconds for at in arrivals)
    spans = [later - earlier for earlier, later in zip(arrivals, arrivals[rate.limit :], strict=False)]
    fullest = max(sum(at <= other < at + rate.seconds for other in arrivals[i:]) for i, at in enumerate(arrivals))
    allowed = int(rate.limit * seconds / rate.seconds)
    return Result(
        way=way,
        processes=processes,
        seconds=seconds,
        allowed=allowed,
        sent=sent,
        share=sent / allowed,
        sustained=rate.seconds * len(spans) / sum(spans) if spans else float("nan"),
        over=max(0, fullest - rate.limit),
        shortest_window_s=min(spans, default=float("nan")),
        client_cpu_s=cpu_s,
    )


@contextmanager
def stores() -> Iterator[dict[str, list[str]]]:
    """Way -> the address of a fresh store for one process, and of one for four."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="limits-")))
        postgres = stack.enter_context(LocalPostgres(durable=True))
        yield {
            "SQLite": [str(folder / "one.sqlite"), str(folder / "four.sqlite")],
            "PostgreSQL": [postgres.make_database("one"), postgres.make_database("four")],
            NAIVE: [NAIVE, NAIVE],
        }


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--limit", default="120/60", help="requests/seconds")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds until the server answers")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(os.environ["LIMITER_AT"], options.worker, options.limit, options.seconds, options.processes)
        return 0
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"
    print(f"{options.limit}, {options.seconds:.0f} s, {THREADS} threads a process, {machine}\n", flush=True)
    results: list[Result] = []
    failures: list[BaseException] = []

    def collect(way: str, where: str, processes: int) -> None:
        try:
            results.append(measure(way, where, processes, options))
        except BaseException as failure:  # noqa: BLE001 - raised below, in the main thread
            failures.append(failure)

    with stores() as known:
        running = []
        for way, addresses in known.items():
            for processes, where in zip((1, 4), addresses, strict=True):
                running.append(threading.Thread(target=collect, args=(way, where, processes)))
                running[-1].start()
                time.sleep(min(STAGGER_S, options.seconds / 6))
        for thread in running:
            thread.join()
    if failures:
        raise failures[0]
    heading = ("way", "processes", "allowed", "sent", "share", "sustained", "over", "shortest window", "client CPU")
    print("{:<12}{:>10}{:>9}{:>7}{:>9}{:>11}{:>6}{:>17}{:>12}".format(*heading))
    for result in sorted(results, key=lambda result: (list(known).index(result.way), result.processes)):
        print(
            f"{result.way:<12}{result.processes:>10}{result.allowed:>9}{result.sent:>7}{result.share:>9.1%}"
            f"{result.sustained:>11.2%}{result.over:>6}{result.shortest_window_s:>15.2f} s"
            f"{result.client_cpu_s:>10.1f} s"
        )
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine, "results": [asdict(result) for result in results]}, indent=2)
        )
    return 1 if any(result.over for result in results if result.way != NAIVE) else 0


if __name__ == "__main__":
    sys.exit(main())

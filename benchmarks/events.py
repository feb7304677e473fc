"""How many events a second one core takes, and what a response costs: the receiver compared with a naive one.

`python benchmarks/events.py [--seconds 5] [--rate 500] [--folder DIR] [--json FILE]`. The peer is a Starlette endpoint
under the same server that appends each event to a file and syncs it before it answers: as durable, and without a
header, limits or a check of what came. Each server is held to one core where the machine has two; events come at
`--rate`, whether the earlier ones are answered or not, and then as fast as 64 clients can send them. CPU is that of the
server's process. Figures are compared within a run; nothing here fails for being slow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ROOT = Path(__file__).parents[1]
CLIENTS = 64
SECRET = "Basic " + b64encode(b"bench:mark").decode()
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figures:
    """One line of the table; times in milliseconds, CPU in share of one core."""

    server: str
    form: str
    load: str
    acknowledged: int
    refused: int
    per_second: float
    cpu_share: float
    cpu_s_per_1000: float
    median_ms: float
    p99_ms: float


def event(number: int) -> dict[str, str]:
    """A documented event of an answered call."""
    uii = f"20261120213637013213{number:010d}"
    return {
        "recording_url": "https://c02-recordings.virtualacd.biz/api/v1/calls/recordings/?v=1&accountId=15300002"
        f"&bucket=c02-recordings&region=us-east-1&compliance=false&file=15300002/202611/20/{uii}-1.WAV",
        "agent_id": "1369310",
        "queue_duration": "3",
        "agent_disposition": "Resolved",
        "gate_name": "My Queue",
        "call_state": "ANSWERED",
        "call_duration": "18",
        "call_id": uii,
        "account_id": "15300002",
        "event_type": "ACD-CALL",
        "gate_id": "72992",
        "call_start": "2026-11-20 21:36:37",
        "dnis": "4155550110",
        "ani": "5105550111",
        "username": "agent@example.com",
    }


def request_of(number: int, form: str) -> bytes:
    """The bytes of a request."""
    head = f"Host: bench\r\nAuthorization: {SECRET}\r\n"
    if form == "query":
        return f"POST /events?{urlencode(event(number))} HTTP/1.1\r\n{head}Content-Length: 0\r\n\r\n".encode()
    body = json.dumps(event(number))
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return f"POST /events HTTP/1.1\r\n{head}{body}".encode()


class Clients:
    """Connections that are kept, and a note of each answer."""

    def __init__(self, port: int, form: str) -> None:
        self._port = port
        self._form = form
        self._idle: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.LifoQueue()
        self._next = 0
        self.times: list[float] = []
        self.refused = 0

    async def send(self, since: float) -> None:
        """Send one event; its time counts from `since`, when it should have been sent."""
        number, self._next = self._next, self._next + 1
        try:
            try:
                reader, writer = self._idle.get_nowait()
            except asyncio.QueueEmpty:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(request_of(number, self._form))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            self.refused += 1
            return
        if head.startswith(b"HTTP/1.1 2"):
            self.times.append(time.perf_counter() - since)
        else:
            self.refused += 1
        self._idle.put_nowait((reader, writer))

    async def paced(self, rate: int, seconds: float) -> None:
        """Send `rate` events a second, whatever becomes of them."""
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                due = begun + number / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(self.send(due))

    async def full(self, seconds: float) -> None:
        """Send as fast as that many clients can."""
        end = time.perf_counter() + seconds

        async def client() -> None:
            while time.perf_counter() < end:
                await self.send(time.perf_counter())

        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client())

    def close(self) -> None:
        """Close what is open."""
        while not self._idle.empty():
            self._idle.get_nowait()[1].close()


def peer(folder: Path, port: int) -> None:
    """The naive receiver."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "events.jsonl").open("a")

    async def take(request: Request) -> Response:
        body = await request.body()
        file.write(json.dumps(json.loads(body) if body else dict(request.query_params)) + "\n")
        file.flush()
        os.fsync(file.fileno())
        return Response()

    app = Starlette(routes=[Route("/events", take, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, http="h11", loop="asyncio", access_log=False, log_level="error")


@contextmanager
def server(name: str, folder: Path) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its port and process id."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pipelines.cli.main", "receiver"]
    if name == "naive":
        command = [sys.executable, __file__, "--peer", str(folder), str(port)]
    variables = {"EVENTS_URL": str(folder), "EVENTS_PORT": str(port), "EVENTS_HEADER_VALUE": SECRET}
    variables |= {"EVENTS_RATE": "100000", "EVENTS_USERNAME": "", "EVENTS_PASSWORD": "", "EVENTS_ALLOW_ANYONE": ""}
    process = subprocess.Popen(command, env=os.environ | variables, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        _separate(process.pid)
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The {name} server did not start.")
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _separate(process: int) -> None:
    """The server on the last core, where there are two."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) > 1:
        os.sched_setaffinity(process, {cores[-1]})


def cpu_seconds(process: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measured(name: str, form: str, load: str, options: argparse.Namespace, folder: Path) -> Figures:
    """One server, one form, one load."""

    async def send(port: int, seconds: float) -> Clients:
        clients = Clients(port, form)
        await (clients.full(seconds) if load == "full" else clients.paced(options.rate, seconds))
        clients.close()
        return clients

    with server(name, folder) as (port, process):
        asyncio.run(send(port, 0.5))  # what is only built once
        before, begun = cpu_seconds(process), time.perf_counter()
        clients = asyncio.run(send(port, options.seconds))
        spent, took = cpu_seconds(process) - before, time.perf_counter() - begun
    count = len(clients.times)
    return Figures(
        name,
        form,
        load,
        count,
        clients.refused,
        round(count / took, 1),
        round(spent / took, 3),
        round(1000 * spent / max(1, count), 3),
        round(1000 * statistics.median(clients.times), 1),
        round(1000 * statistics.quantiles(clients.times, n=100)[98], 1),
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="where events are kept: the disk that is measured")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--peer", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        peer(Path(options.peer[0]), int(options.peer[1]))
        return
    rows: list[Figures] = []
    paced = f"{options.rate}/s"
    headings = ("ack/s", "refused", "CPU", "CPU s/1000", "p50 ms", "p99 ms")
    print(f"{'server':<10}{'form':<7}{'load':<8}" + "".join(f"{heading:>11}" for heading in headings))
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        for load in (paced, "full"):
            for name, form in (("receiver", "json"), ("receiver", "query"), ("naive", "json"), ("naive", "query")):
                row = measured(name, form, load, options, Path(scratch, f"{name}-{form}-{load[:4].strip('/s')}"))
                rows.append(row)
                print(
                    f"{name:<10}{form:<7}{load:<8}{row.per_second:>11}{row.refused:>11}{row.cpu_share:>11.0%}"
                    f"{row.cpu_s_per_1000:>11}{row.median_ms:>11}{row.p99_ms:>11}",
                    flush=True,
                )
    if options.json:
        figures: dict[str, Any] = {"cores": os.cpu_count(), "seconds": options.seconds}
        figures["rows"] = [asdict(row) for row in rows]
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

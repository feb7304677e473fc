"""Receivers in processes of their own, and clients that count what was acknowledged."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
USER, PASSWORD = "ringcx", "correct horse battery"
AUTHORIZATION = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
_READY = re.compile(r"Receiving End Call Events at http://[^:]+:(\d+)/")


def event(number: int, **fields: Any) -> dict[str, Any]:
    """A documented event; numbers make them distinct, and tell a call from every other."""
    return {
        "recording_url": "https://c02-recordings.virtualacd.biz/api/v1/calls/recordings/?v=1&accountId=15300002&bucket="
        f"c02-recordings&region=us-east-1&compliance=false&file=15300002/202006/30/20200630213637013213{number:010d}-1.WAV",
        "agent_id": "1369310",
        "queue_duration": "3",
        "agent_disposition": "",
        "gate_name": "My Queue",
        "call_state": "ANSWERED",
        "call_duration": "18",
        "call_id": f"20200630213637013213{number:010d}",
        "external_agent_id": None,
        "account_id": "15300002",
        "event_type": "ACD-CALL",
        "gate_id": "72992",
        "call_start": "2020-06-30 21:36:37",
        "dnis": "4155550110",
        "ani": "5105550111",
        "username": "rc.guest+15300002_1791@gmail.com",
        **fields,
    }


class ReceiverProcess:
    """`ringcx-archive receiver`, for the length of a `with` block."""

    def __init__(self, url: str | Path, *, port: int = 0, **variables: str) -> None:
        basic = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
        secret = {"EVENTS_USERNAME": USER, "EVENTS_PASSWORD": PASSWORD}
        self._environment = {**basic, **secret, "EVENTS_URL": str(url), "EVENTS_PORT": str(port), **variables}
        self._lines: list[str] = []
        self._ready = threading.Event()
        self.port = port

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli.main", "receiver"],
            env=self._environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._ready.wait(60), "the receiver did not start: " + self.log
        assert self.port, self.log
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(40)
        self._reader.join(10)
        return code

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)
            if found := _READY.search(line):
                self.port = int(found[1])
                self._ready.set()
        self._ready.set()


@dataclass
class Load:
    """Clients that send events of their own numbers without pause, and note which were answered 200."""

    port: int
    clients: int = 6
    first: int = 0
    acknowledged: set[str] = field(default_factory=set)
    answers: dict[int, int] = field(default_factory=dict)
    sent: int = 0

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for(self, acknowledged: int, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while len(self.acknowledged) < acknowledged:
            assert time.monotonic() < deadline, f"only {len(self.acknowledged)} acknowledged, answers {self.answers}"
            time.sleep(0.005)

    def _client(self, number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        at = self.first + number
        while not self._stop.is_set():
            sent = event(at)
            at += self.clients
            with self._lock:
                self.sent += 1
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                headers = {"Authorization": AUTHORIZATION, "Content-Type": "application/json"}
                connection.request("POST", "/events", json.dumps(sent), headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.02)
                continue
            with self._lock:
                self.answers[answer.status] = self.answers.get(answer.status, 0) + 1
                if answer.status == 200:
                    self.acknowledged.add(sent["call_id"])
        if connection is not None:
            connection.close()

"""moto_server, one request at a time: honours IfNoneMatch and keeps versions; checks no signature and no bytes.

moto looks and stores in two steps, so that of two conditional puts both could win. As a script, this module
takes the arguments of `python -m moto.server`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Lock
from typing import Any, Self

from sandbox.s3 import S3Endpoint
from tests.servers.ports import free_port, wait_until_listening


class AtomicMoto(S3Endpoint):
    """A server in a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.servers.atomic_moto", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(
            command, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until_listening(self._process, self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> None:
    from moto import server
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication

    lock = Lock()

    class OneAtATime(DomainDispatcherApplication):
        def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            with lock:
                return list(super().__call__(environ, start_response))

    server.DomainDispatcherApplication = OneAtATime  # type: ignore[attr-defined]  # moto names no exports
    server.main()


if __name__ == "__main__":
    main()

"""Ports of this machine: one that is free, and the wait until a server listens at one."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import suppress

PATIENCE_S = 60.0  # what takes a second or less may take so long on a busy machine


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_until_listening(process: subprocess.Popen[bytes], port: int, *, seconds: float = PATIENCE_S) -> None:
    """Return once the process takes connections; one that ends, or takes none in this time, fails the test."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, f"{process.args!r} ended at once"
        assert time.monotonic() < deadline, f"{process.args!r} does not listen"
        time.sleep(0.02)

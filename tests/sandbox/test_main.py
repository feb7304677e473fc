"""`python -m sandbox` runs both servers until a signal."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_both_servers_run_in_the_foreground_and_end_on_a_signal(tmp_path: Path, end: signal.Signals) -> None:
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--s3-port", "0", "--data", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(2)]
        try:
            s3, source = (line.rpartition(" ")[2] for line in lines)
            assert lines == [f"S3 ready at {s3}", f"RingCX ready at {source}"]
            assert httpx.get(f"{source}/sandbox/counters", trust_env=False).status_code == 200
            assert httpx.get(s3, trust_env=False).status_code in (400, 403)  # it wants a signature
        finally:
            process.send_signal(end)
        assert process.wait(15) == 0
    for url in (s3, source):
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=2):  # noqa: PT011
            pass
    assert (tmp_path / "s3/ringcx-archive").is_dir()

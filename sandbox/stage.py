"""The stage of `make demo` and `make ui`: the sandbox and the local S3 on fixed ports, their data kept under
`data/demo/`.

Fixed ports, because links hold the sandbox's address: another port would make every link of the last demo look changed.
`DEMO_HOME` names another folder than the project's for `data/`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType

from click import ClickException

from sandbox.config import Limits, demo_config
from sandbox.s3 import LocalS3
from sandbox.server import RunningSandbox


class StageBusy(ClickException):
    """The stage cannot be set: a port is taken, a variable is wrong, or a server does not start."""


def _port(variable: str, default: str) -> int:
    text = os.environ.get(variable) or default
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise StageBusy(f"{variable} must be a port number")
    return int(text)


ROOT = Path(__file__).parents[1]
HOME = Path(os.environ.get("DEMO_HOME") or ROOT).resolve()
DATA = HOME / "data" / "demo"
SOURCE_PORT = _port("SANDBOX_PORT", "8765")
SOURCE = os.environ.get("SOURCE") or "legacy"
S3_PORT = _port("SANDBOX_S3_PORT", "8766")


def settle_in() -> None:
    """Work in `DATA`, with a history of its own; end on SIGTERM as on Ctrl-C, so that servers end too.

    Never work in a folder with an account's `.env`: Dagster's processes would let that file override the variables set
    here, and archive that account.
    """
    DATA.mkdir(parents=True, exist_ok=True)
    os.chdir(DATA)
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, DATA)
    os.environ["DAGSTER_HOME"] = str(DATA)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Also where SIGINT is ignored, as in `make ui &`: children inherit that, and Dagster could not be stopped.
        signal.signal(number, _interrupt)


def need_port(variable: str, port: int) -> None:
    """Require that no process listens on `port`, which `variable` sets.

    Raises:
        StageBusy: a process does.
    """
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise StageBusy(
                f"Port {port} of 127.0.0.1 is in use, perhaps by another `make demo` or `make ui`: "
                f"stop that one, or set {variable} to a free port."
            )


@contextmanager
def stage() -> Iterator[dict[str, str]]:
    """Run both servers and yield the variables that point the archiver at them.

    Raises:
        StageBusy: one of the ports is taken, SOURCE is not a source, or a server does not start; the text says
            which and what to do.
    """
    if SOURCE not in {"legacy", "current", "both"}:
        raise StageBusy("SOURCE must be legacy, current or both.")
    need_port("SANDBOX_PORT", SOURCE_PORT)
    need_port("SANDBOX_S3_PORT", S3_PORT)
    # The documented 2 requests a minute would make the demo of two dates three minutes long.
    # ... and the current API's 9 in a quarter of an hour half an hour.
    limits = Limits(reports="60/60", exchange="5/60", media="none", metadata="60/60", download="none")
    config = replace(demo_config(), limits=limits)
    with ExitStack() as servers:
        try:
            s3 = servers.enter_context(LocalS3(DATA / "s3", port=S3_PORT))
            source = servers.enter_context(RunningSandbox(config, port=SOURCE_PORT, own_process=True))
        except RuntimeError as error:
            raise StageBusy(f"{error} Nothing was archived; try again.") from None
        yield {
            **source.environment(),
            **s3.environment(),
            "RINGCX_SOURCE": SOURCE,
            "RINGCX_LIMIT_REPORTS": "60/60",
            "RINGCX_LIMIT_METADATA": "60/60",
            "RINGCX_LIMIT_MEDIA": "none",
            "ARCHIVE_BUCKET": s3.bucket,
            "ARCHIVE_START_DATE": f"{datetime.now(UTC).date() - timedelta(days=89)}",
            "ARCHIVE_RETRY_MINUTES": "10,30,60",
            "DATA_DIR": str(DATA),
        }


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

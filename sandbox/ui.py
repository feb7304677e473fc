"""`make ui`: the Dagster UI and daemon, over the demo's stage, or over a real account when `.env` names one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from dagster import DagsterInstance
from dotenv import dotenv_values

from pipelines.settings import Settings
from sandbox.stage import ROOT, StageBusy, stage

UI_PORT = os.environ.get("UI_PORT", "3000")
# How many steps of a kind may run at once, over all runs: pulls wait for the same few permits, fetches share one line.
POOLS = {"ringcx_reports": 2, "ringcx_media": 2}


def main() -> int:
    """Run until interrupted; returns Dagster's exit code."""
    os.chdir(ROOT)
    os.environ["DAGSTER_HOME"] = str(ROOT)
    try:
        with ExitStack() as stack:
            if _has_account(ROOT / ".env"):
                _say("Using the account of .env.")
            else:
                variables = stack.enter_context(stage())
                os.environ.update({name.upper(): "" for name in Settings.model_fields} | variables)
                _say("No account in .env: using the sandbox RingCX and the local S3 of the demo.")
            Path("data/dagster").mkdir(parents=True, exist_ok=True)
            with DagsterInstance.get() as instance:
                for pool, limit in POOLS.items():
                    instance.event_log_storage.set_concurrency_slots(pool, limit)
            _say(f"Dagster UI: http://127.0.0.1:{UI_PORT}  (stop with Ctrl-C)")
            return _serve()
    except StageBusy as busy:
        _say(str(busy))
        return 1


def _serve() -> int:
    """Run `dagster dev` as a child: the stage must outlive it and end with it."""
    command = [sys.executable, "-m", "dagster", "dev", "--host", "127.0.0.1", "--port", UI_PORT]
    child = subprocess.Popen(command)  # noqa: S603 - a fixed command

    def pass_on(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    return child.wait()


def _has_account(file: Path) -> bool:
    return bool(os.environ.get("RINGCX_ACCOUNT_IDS") or dotenv_values(file).get("RINGCX_ACCOUNT_IDS"))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

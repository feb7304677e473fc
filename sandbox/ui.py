"""`make ui`: the Dagster UI and daemon, over the demo's stage, or over a real account when `.env` names one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from dagster import DagsterInstance
from dotenv import dotenv_values

from pipelines.settings import Settings
from sandbox.stage import HOME, ROOT, StageBusy, need_port, settle_in, stage

UI_PORT = int(os.environ.get("UI_PORT", "3000"))
# Steps of a kind at once, over all runs: one more than the runs of older dates that dagster.yaml lets go on together.
POOLS = {"ringcx_reports": 4, "ringcx_metadata": 4, "ringcx_media": 4}
STOP_SECONDS = 30.0


def main() -> int:
    """Run until interrupted; returns the exit code: 0 when it was asked to stop."""
    settle_in()
    try:
        need_port("UI_PORT", UI_PORT)
        with ExitStack() as stack:
            if _has_account(HOME / ".env"):
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
    except KeyboardInterrupt:
        return 0


def _serve() -> int:
    """Run `dagster dev` until it ends by itself (its exit code) or until a KeyboardInterrupt, which ends it.

    It gets a session of its own: Ctrl-C must reach it once, from here, not a second time in the middle of its clean-up.
    """
    command = [sys.executable, "-m", "dagster", "dev", "--workspace", str(ROOT / "workspace.yaml")]
    child = subprocess.Popen(  # noqa: S603 - a fixed command
        [*command, "--host", "127.0.0.1", "--port", str(UI_PORT)], start_new_session=True
    )
    try:
        return child.wait()
    except KeyboardInterrupt:
        _say("Stopping Dagster; a run in progress is broken off, and loses nothing.")
        # All of them: a run's worker is not told by the others, and would go on without them.
        os.killpg(child.pid, signal.SIGINT)
        child.wait(STOP_SECONDS)
        _wait_for_workers(child.pid)
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _wait_for_workers(group: int) -> None:
    """Until no process of the group is left, so that a run can still write down that it was broken off."""
    deadline = time.monotonic() + STOP_SECONDS
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.1)


def _has_account(file: Path) -> bool:
    return bool(os.environ.get("RINGCX_ACCOUNT_IDS") or dotenv_values(file).get("RINGCX_ACCOUNT_IDS"))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

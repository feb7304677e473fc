"""`ringcx-archive ui`: runs the Dagster UI and daemon, for the account in `.env`, or for the demo if there is none."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import IO

import click
import dagster as dg

from pipelines.cli.history import dagster_history
from pipelines.cli.options import (
    check_dagster_home,
    from_sandbox,
    require_no_account_elsewhere,
    stop_like_ctrl_c,
    subcommand,
)
from pipelines.orchestration.date_run import require_end, stored_by
from pipelines.orchestration.environment import Environment
from pipelines.orchestration.run_requests import PARTITION_TAG, STOPPED_TAG
from pipelines.settings import BrowseSettings, DagsterSettings, Settings, env_file, environment_for_dagster, load
from pipelines.wording import number

# Steps of a kind at once, over all runs: one more than the runs of older dates that dagster.yaml lets go on together.
POOLS = {"ringcx_reports": 4, "ringcx_metadata": 4, "ringcx_media": 4}
START_SECONDS = 120.0  # on a busy machine; a page that ends is noticed at once
STOP_SECONDS = 30.0
# Dagster sets it on a run that its own launcher started, so not on one of `ringcx-archive run`.
_LAUNCHED_TAG = ".dagster/grpc_info"


@subcommand("ui", "ui --port 3001", takes_dependencies=False)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=3000,
    envvar="UI_PORT",
    show_default=True,
    help="The UI's port. Also: UI_PORT.",
)
def command(port: int) -> None:
    """Run the Dagster UI and daemon on 127.0.0.1 until Ctrl-C, for the account in .env or for the demo.

    It also serves the page on which people find and hear calls, at BROWSE_PORT: always in the demo, otherwise only if
    BROWSE_AUTH is set.

    The daemon runs the schedules and sensors. Exit code 0: it was stopped.
    """
    if find_spec("dagster_webserver") is None:
        raise click.ClickException(
            "The UI needs the package dagster-webserver: pip install '.[ui]' in the project folder"
        )
    _require_free_port(port, "--port or UI_PORT")
    with ExitStack() as stack:
        if os.environ.get("RINGCX_ACCOUNT_IDS") or env_file().get("RINGCX_ACCOUNT_IDS"):
            load(DagsterSettings)
            check_dagster_home()
            given_in = "the environment" if os.environ.get("RINGCX_ACCOUNT_IDS") else ".env"
            click.echo(f"Using the account in {given_in}.")
        else:
            require_no_account_elsewhere()
            stage = from_sandbox("stage")
            stage.settle_in()
            variables = stack.enter_context(stage.stage())
            ours = Settings.model_fields | BrowseSettings.model_fields
            page = {"BROWSE_AUTH": "open", "BROWSE_PORT": os.environ.get("BROWSE_PORT", "")}
            os.environ.update({name.upper(): "" for name in ours} | variables | page)
            click.echo("No account in .env: using the sandbox RingCX and the local S3 of the demo.")
        workspace = Path(os.environ["DAGSTER_HOME"]) / "workspace.yaml"
        if not workspace.is_file():
            raise click.ClickException(f"There is no {workspace}: copy it from the project")
        _lock_home(workspace.parent, stack)
        stop_like_ctrl_c()
        with dagster_history() as instance:
            for pool, limit in POOLS.items():
                instance.event_log_storage.set_concurrency_slots(pool, limit)
        if os.environ.get("BROWSE_AUTH") or env_file().get("BROWSE_AUTH"):
            settings = load(BrowseSettings)
            _require_free_port(settings.browse_port, "BROWSE_PORT")
            stack.enter_context(_browse(settings))
            os.environ["BROWSE_URL"] = settings.browse_origin  # for the links to it in Dagster
        click.echo(f"Starting the Dagster UI: http://127.0.0.1:{port}  (stop with Ctrl-C)")
        with suppress(KeyboardInterrupt):
            _serve(workspace, port)


def _lock_home(home: Path, stack: ExitStack) -> None:
    """Lock `home`, or raise ClickException if another UI uses it: Dagster wants one daemon for a history, and each UI
    would stop the other's runs.
    """
    folder = os.open(home, os.O_RDONLY)
    stack.callback(os.close, folder)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise click.ClickException(f"Another UI of {home} is running: use that one, or stop it first") from None


def _require_free_port(port: int, option: str) -> None:
    if _is_served("127.0.0.1", port):
        raise click.ClickException(f"Port {port} of 127.0.0.1 is in use, perhaps by another UI: give a free {option}")


def _is_served(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def _browse(settings: BrowseSettings) -> Iterator[None]:
    """Serve the calls page in its own process, which prints its address and ends with the block; raise
    ClickException if it does not start.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.browse_host, settings.browse_host)  # noqa: S104 - read only
    command = [sys.executable, "-m", "pipelines.cli.main", "browse"]
    page = subprocess.Popen(command, start_new_session=True)  # noqa: S603 - a fixed command
    deadline = time.monotonic() + START_SECONDS
    try:
        while not _is_served(host, settings.browse_port):
            if page.poll() is not None or time.monotonic() > deadline:
                raise click.ClickException("The calls page did not start; see its output above")
            time.sleep(0.1)
        yield
    finally:
        page.terminate()
        with suppress(subprocess.TimeoutExpired):
            page.wait(STOP_SECONDS)
        page.kill()
        page.wait()


def _serve(workspace: Path, port: int) -> None:
    """Run `dagster dev` until a KeyboardInterrupt stops it; raise ClickException if it ends by itself.

    It gets its own session, so that Ctrl-C reaches it once, from here, and not again during its clean-up.
    """
    command = [sys.executable, "-m", "dagster", "dev", "--workspace", str(workspace)]
    child = subprocess.Popen(  # noqa: S603 - a fixed command
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env={**environment_for_dagster(), "PYTHONWARNINGS": "ignore::FutureWarning:click.core"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    stopping = Event()
    Thread(target=_show, args=(child.stdout, stopping), daemon=True).start()
    try:
        raise click.ClickException(f"Dagster stopped by itself with exit code {child.wait()}; see its output above")
    except KeyboardInterrupt:
        stopping.set()
        click.echo("Stopping Dagster, which takes a few seconds.")
        with dagster_history() as instance:
            runs = _cancel(instance)
            # All of them: a run's worker gets no signal from the others, and would go on without them.
            os.killpg(child.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                child.wait(STOP_SECONDS)
                _wait_for_workers(child.pid)
            _kill(child)
            for run in runs:
                require_end(instance, run)
            click.echo(_what_was_stopped(runs))
        raise
    finally:
        _kill(child)


def _show(output: IO[bytes], stopping: Event) -> None:
    """Show what Dagster prints, but not the tracebacks of code that is interrupted at the end."""
    with output:
        for line in output:
            if not stopping.is_set():
                with suppress(OSError):  # the terminal is gone
                    click.echo(line, nl=False)


def _kill(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _cancel(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Mark this UI's runs in progress as canceled, so that they do not end as failed, and return them."""
    going_on = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]))
    runs = [run for run in going_on if _LAUNCHED_TAG in run.tags]
    for run in runs:
        instance.add_run_tags(run.run_id, {STOPPED_TAG: run.run_id})
        instance.report_run_canceling(run)
    return runs


def _what_was_stopped(runs: Sequence[dg.DagsterRun]) -> str:
    """Return the last sentence: what the runs had stored, and how to continue them."""
    if not runs:
        return "Stopped. The UI had no run in progress."
    environment, stopped = Environment(), []
    for run in runs:
        day = run.tags.get(PARTITION_TAG)
        count = stored_by(environment, run.run_id, date.fromisoformat(day)) if day else None
        stored = "" if count is None else f", which had stored {number(count, 'recording')}"
        stopped.append(f"the run of {day or run.job_name}{stored}")
    return f"Stopped {'; '.join(stopped)}. Nothing is lost: start the UI again, and it runs their dates again."


def _wait_for_workers(group: int) -> None:
    """Wait until no process of the group is left, so that a run can still record that it was stopped."""
    deadline = time.monotonic() + STOP_SECONDS
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.1)

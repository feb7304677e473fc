"""`make demo`: archives two past dates of the sandbox through Dagster and prints what came of it.

The one place where the sandbox meets the product: it runs the documented command for each date, follows the run in
Dagster's event log, and reads the result from the ledger.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from dagster import DagsterEventType, DagsterInstance, EventLogEntry, RunsFilter

from pipelines.ledger.states import RecordingState, Status
from pipelines.orchestration.environment import Environment, LedgerStore
from pipelines.settings import Settings
from sandbox.stage import DATA, HOME, StageBusy, settle_in, stage

DAYS_BACK = (2, 1)
_LINES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "agent_segment_metadata": ("{} rows, {} new, {} with a link", ("rows_pulled", "rows_new", "rows_with_link")),
    "global_call_type_detail": ("{} rows, {} new, {} with a link", ("rows_pulled", "rows_new", "rows_with_link")),
    "interaction_metadata": ("{} rows, {} new, {} with a recording", ("rows_pulled", "rows_new", "rows_with_link")),
    "recording_links": ("{} recordings found, {} new", ("recordings_found", "recordings_new")),
    "recordings": ("{} archived now, {} pending, {} MB", ("archived_now", "pending", "megabytes_now")),
    "daily_manifest": ("manifest number {}, {} recordings held", ("manifest_number", "archived")),
}


def main() -> int:
    """Run the demo; returns the exit code: 0 when every date's run succeeded."""
    settle_in()
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=back) for back in DAYS_BACK]
    try:
        with stage() as variables:
            # Each variable that the demo does not set is emptied: a real account's .env must not leak into it.
            os.environ.update({name.upper(): "" for name in Settings.model_fields} | variables)
            DATA.mkdir(parents=True, exist_ok=True)
            _say(f"Sandbox RingCX and local S3 are running. Archiving {days[0]} and {days[1]} through Dagster.\n")
            succeeded = [_archive(day) for day in days]
            _summary(days)
    except StageBusy as busy:
        _say(str(busy))
        return 1
    except KeyboardInterrupt:
        _say("\nStopped. What is archived stays; the next run takes up the rest.")
        return 130
    return 0 if all(succeeded) else 1


def _archive(day: date) -> bool:
    """Run one date by the documented command, showing each step as it ends."""
    log = DATA / f"run-{day}.log"
    command = ["-m", "dagster", "asset", "materialize", "-m", "pipelines.definitions", "--select", "*"]
    started = time.time()
    with log.open("w") as output, DagsterInstance.get() as instance:
        process = subprocess.Popen(  # noqa: S603 - a fixed command
            [sys.executable, *command, "--partition", f"{day}"], stdout=output, stderr=subprocess.STDOUT
        )
        try:
            for event in _events(instance, day, started, process):
                _tell(day, event)
        finally:
            if process.poll() is None:
                process.terminate()
        code = process.wait()
    _live("")
    if code:
        _say(f"{day}  the run FAILED; what it said is in {_relative(log)}\n")
    return code == 0


def _events(
    instance: DagsterInstance, day: date, started: float, process: subprocess.Popen[bytes]
) -> Iterator[EventLogEntry]:
    """The run's events until it has ended, oldest first."""
    run_id, cursor, ended = None, None, False
    created_after = datetime.fromtimestamp(started, UTC)
    while not ended:
        ended = process.poll() is not None
        if run_id is None:
            wanted = RunsFilter(tags={"dagster/partition": f"{day}"}, created_after=created_after)
            run_id = next((record.dagster_run.run_id for record in instance.get_run_records(wanted, limit=1)), None)
            _live(f"{day}  starting")
        if run_id is not None:
            found = instance.event_log_storage.get_records_for_run(run_id, cursor)
            cursor = found.cursor
            yield from (record.event_log_entry for record in found.records)
        time.sleep(0.2)


def _tell(day: date, entry: EventLogEntry) -> None:
    event = entry.dagster_event
    if event is None:
        if entry.step_key == "recordings":
            _live(f"{day}  {entry.user_message.splitlines()[0]}")
        return
    if event.event_type is DagsterEventType.STEP_START:
        _live(f"{day}  {event.step_key} …")
    elif event.event_type is DagsterEventType.ASSET_MATERIALIZATION and event.asset_key:
        name = event.asset_key.to_user_string()
        if name not in _LINES:  # what tends the archive and is no step of a date's way into it
            return
        text, fields = _LINES[name]
        metadata = event.step_materialization_data.materialization.metadata
        _live("")
        _say(
            f"{day}  {name:<24} {text.format(*(metadata[field].value if field in metadata else 0 for field in fields))}"
        )
    elif event.event_type is DagsterEventType.STEP_FAILURE:
        _live("")
        _say(f"{day}  {event.step_key:<24} FAILED")


def _summary(days: list[date]) -> None:
    environment = Environment()
    ledger = LedgerStore(environment).open()
    columns = ["found", *(str(status) for status in Status), "MB held"]
    _say(f"\n{'date':<12}" + "".join(f"{name:>10}" for name in columns))
    explained: Counter[tuple[str, str]] = Counter()
    soonest: list[datetime] = []
    for day, states in ((day, ledger.states([day]).values()) for day in days):
        by_status = Counter(state.status for state in states)
        megabytes = sum(state.size or 0 for state in states) / 1e6
        numbers = [by_status.total(), *(by_status[status] for status in Status)]
        _say(f"{day!s:<12}" + "".join(f"{number:>10}" for number in numbers) + f"{megabytes:>10.1f}")
        explained.update(_reason(state) for state in states if state.status is not Status.archived)
        soonest += [state.next_attempt_at for state in states if state.next_attempt_at]
    if explained:
        _say("\nNot held, and why:")
        for (status, reason), number in sorted(explained.items()):
            _say(f"  {number:>4}  {status:<9} {reason}")
    if soonest:
        _say(f"Pending ones are tried again from {min(soonest):%H:%M} UTC on, by `make ui`'s sensor or the next run.")
    bucket = DATA / "s3" / environment.settings.archive_bucket
    _say(
        f"\nRecordings  {_relative(bucket / 'recordings')}/date=…/account_id=…/layout=…/"
        f"\nManifests   {_relative(bucket / 'manifests')}/date=…/"
        f"\nCatalog     {_relative(bucket / 'catalog')}/date=…/  (Parquet)"
        f"\nLedger      {_relative(bucket / 'ledger')}/  (Parquet)"
        "\n\nSee it in the Dagster UI:  make ui"
    )


def _reason(state: RecordingState) -> tuple[str, str]:
    return str(state.status), state.reason or "not tried yet"


def _relative(path: Path) -> str:
    return str(path.relative_to(HOME))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _live(line: str) -> None:
    """Overwrite the last line of a terminal; nothing where the output is a file."""
    if sys.stdout.isatty():
        sys.stdout.write(f"\r\033[K{line}")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

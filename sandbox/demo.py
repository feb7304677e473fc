"""`ringcx-archive demo`: archives two past dates of the sandbox as `ringcx-archive run` does, and prints a summary.

The place where the sandbox meets the product; the summary is read from the ledger.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from pipelines.cli.run import RunsStopped, archive
from pipelines.ledger.states import RecordingState, Status
from pipelines.orchestration.environment import Environment
from pipelines.settings import Settings
from pipelines.steps.pull.coverage import SETTLED
from pipelines.wording import reason_in_words
from sandbox.stage import DATA, HOME, settle_in, stage

DAYS_BACK = (2, 1)


def main() -> int:
    """Run the demo; returns the exit code: 0 when every date's run succeeded."""
    settle_in()
    today = (datetime.now(UTC) - SETTLED).date()  # a date is unknown until its last calls are reported
    days = [today - timedelta(days=back) for back in DAYS_BACK]
    try:
        with stage() as variables:
            # Each setting that the demo does not set is emptied: a real account's must not leak into it.
            os.environ.update({name.upper(): "" for name in Settings.model_fields} | variables)
            _say(f"Sandbox RingCX and local S3 are running. Archiving {days[0]} and {days[1]} through Dagster.\n")
            succeeded, _ = archive(days, Environment())
            _summary(days)
    except (KeyboardInterrupt, RunsStopped) as stopped:
        _say(f"{str(stopped) or 'Stopped.'} Continue with: make demo")
        return 130
    return 0 if succeeded else 1


def _summary(days: list[date]) -> None:
    environment = Environment()
    ledger = environment.stores.ledger
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
        who = "by the sensor of `make ui` or by the next `make demo`"
        _say(f"Pending recordings are retried from {min(soonest):%H:%M} UTC, {who}.")
    bucket = DATA / "s3" / environment.settings.archive_bucket
    _say(
        f"\nRecordings  {_relative(bucket / 'recordings')}/date=…/account_id=…/layout=…/"
        f"\nManifests   {_relative(bucket / 'manifests')}/date=…/"
        f"\nCatalog     {_relative(bucket / 'catalog')}/date=…/  (Parquet)"
        f"\nLedger      {_relative(bucket / 'ledger')}/  (Parquet)"
        "\n\nFind calls and hear them, and see all of it in the Dagster UI:  make ui"
    )


def _reason(state: RecordingState) -> tuple[str, str]:
    why = f"{state.reason}: {reason_in_words(state.reason, state.status)}" if state.reason else "not tried yet"
    return str(state.status), why


def _relative(path: Path) -> str:
    return str(path.relative_to(HOME))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()

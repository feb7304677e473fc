"""The steps of a date while it is archived: a line for each that ended and, on a terminal, what is running now."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Self

from dagster import AssetCheckEvaluation, AssetCheckSeverity, DagsterEvent, DagsterEventType, EventLogEntry
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pipelines.wording import number

_LINES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "agent_segment_metadata": lambda metadata: f"{_rows(metadata)}, {metadata['rows_with_link']:,} with a link",
    "global_call_type_detail": lambda metadata: f"{_rows(metadata)}, {metadata['rows_with_link']:,} with a link",
    "interaction_metadata": lambda metadata: f"{_rows(metadata)}, {metadata['rows_with_link']:,} with a recording",
    "end_call_events": lambda metadata: f"{number(metadata['events_read'], 'event')}, {metadata['events_new']:,} new",
    "recording_links": lambda metadata: (
        f"{number(metadata['recordings_found'], 'recording')} found, {metadata['recordings_new']:,} new"
    ),
    "recordings": lambda metadata: (
        f"{metadata['archived_now']:,} archived now, {metadata['pending']:,} pending, {metadata['megabytes_now']:,} MB"
    ),
    "daily_manifest": lambda metadata: (
        f"manifest number {metadata['manifest_number']}, {number(metadata['archived'], 'recording')} held"
    ),
    "calls": lambda metadata: number(metadata["dagster/partition_row_count"], "row"),
}


def _rows(metadata: Mapping[str, Any]) -> str:
    return f"{number(metadata['rows_pulled'], 'row')}, {metadata['rows_new']:,} new"


class Progress:
    """A display of the events of a run of `day`, for a `with` block. `steps`: the steps that have not begun."""

    def __init__(self, console: Console, day: date) -> None:
        self._console, self._day = console, day
        self.steps: Sequence[str] = ()
        self._running: dict[str, tuple[Spinner, float]] = {}
        self._checks: Counter[str] = Counter()
        self._live = Live(console=console, get_renderable=self._table, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        if self._checks:
            self._say("checks", ", ".join(f"{count} {how}" for how, count in self._checks.items()))

    def show(self, entry: EventLogEntry) -> None:
        """Show one event of the run."""
        step, event = entry.step_key, entry.dagster_event
        if step is None:
            return
        if event is None:
            self._show_message(step, entry.user_message)
            return
        if event.event_type is DagsterEventType.STEP_START:
            self.steps = [name for name in self.steps if name != step]
            self._running[step] = Spinner("dots"), time.monotonic()
        elif event.event_type is DagsterEventType.ASSET_MATERIALIZATION and step in _LINES:
            metadata = event.step_materialization_data.materialization.metadata
            self._say(step, _LINES[step](Counter({name: each.value for name, each in metadata.items()})))
        elif event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION:
            self._checks[_outcome(event.asset_check_evaluation_data)] += 1
        elif event.event_type is DagsterEventType.STEP_FAILURE:
            self._say(step, _failure(event))
        if event.is_step_success or event.is_step_failure or event.is_step_skipped:
            self._running.pop(step, None)

    def _show_message(self, step: str, message: str) -> None:
        if not message.startswith("Dependencies for step"):
            self._note(step, message.partition("\n")[0])
        elif step in _LINES:  # Dagster has no event for it
            self._say(step, "not run: a step before it failed")

    def _note(self, step: str, text: str) -> None:
        if self._live is None:
            self._say(step, text)
        elif step in self._running:
            self._running[step][0].update(text=Text(text))

    def _say(self, step: str, text: str) -> None:
        self._console.print(Text(f"{self._day}  {step:<24} {text}"), soft_wrap=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for step, (spinner, began) in list(self._running.items()):  # the display draws in a thread of its own
            elapsed = timedelta(seconds=round(time.monotonic() - began))
            table.add_row(str(self._day), step, spinner, f"[dim]{elapsed}")
        names = [name for name in self.steps if name in _LINES]
        checks = len(self.steps) - len(names)
        then = ", ".join([*names, *([number(checks, "check")] if checks else [])])
        if not self._running:
            table.add_row(str(self._day), Spinner("dots", "starting"))
        if then:
            table.add_row("", "[dim]then", f"[dim]{then}")
        return table


def _outcome(check: AssetCheckEvaluation) -> str:
    if check.passed:
        return "passed"
    return "with a warning" if check.severity is AssetCheckSeverity.WARN else "failed"


def _failure(event: DagsterEvent) -> str:
    failure = event.step_failure_data
    if failure.error_source is not None and failure.error_source.name == "INTERRUPT":
        return "stopped"
    sentence = failure.user_failure_data and failure.user_failure_data.description
    error, _, _ = (sentence or failure.error_display_string).partition("\n")
    return f"FAILED: {error}"

"""The steps of a date while it is archived: a line for each that ended and, on a terminal, what is running now."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Self

from dagster import AssetCheckSeverity, DagsterEventType, EventLogEntry
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pipelines.wording import number

_LINES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "agent_segment_metadata": ("{} rows, {} new, {} with a link", ("rows_pulled", "rows_new", "rows_with_link")),
    "global_call_type_detail": ("{} rows, {} new, {} with a link", ("rows_pulled", "rows_new", "rows_with_link")),
    "interaction_metadata": ("{} rows, {} new, {} with a recording", ("rows_pulled", "rows_new", "rows_with_link")),
    "end_call_events": ("{} events, {} new", ("events_read", "events_new")),
    "recording_links": ("{} recordings found, {} new", ("recordings_found", "recordings_new")),
    "recordings": ("{} archived now, {} pending, {} MB", ("archived_now", "pending", "megabytes_now")),
    "daily_manifest": ("manifest number {}, {} recordings held", ("manifest_number", "archived")),
    "calls": ("{} rows", ("dagster/partition_row_count",)),
}


class Progress:
    """A display of the events of a run of `day`, for a `with` block. `steps`: the steps that have not begun."""

    def __init__(self, console: Console, day: date) -> None:
        self._console = console
        self._day = day
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
        if event is None and entry.user_message.startswith("Dependencies for step"):  # Dagster has no event for it
            if step in _LINES:
                self._say(step, "not run: a step before it failed")
        elif event is None:
            self._note(step, entry.user_message.partition("\n")[0])
        elif event.event_type is DagsterEventType.STEP_START:
            self.steps = [name for name in self.steps if name != step]
            self._running[step] = Spinner("dots"), time.monotonic()
        elif event.event_type is DagsterEventType.ASSET_MATERIALIZATION and step in _LINES:
            text, names = _LINES[step]
            metadata = event.step_materialization_data.materialization.metadata
            self._say(step, text.format(*(metadata[name].value if name in metadata else 0 for name in names)))
        elif event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            warns = evaluation.severity is AssetCheckSeverity.WARN
            self._checks["passed" if evaluation.passed else "with a warning" if warns else "failed"] += 1
        elif event.event_type is DagsterEventType.STEP_FAILURE:
            failure = event.step_failure_data
            sentence = failure.user_failure_data and failure.user_failure_data.description
            error, _, _ = (sentence or failure.error_display_string).partition("\n")
            is_stopped = failure.error_source is not None and failure.error_source.name == "INTERRUPT"
            self._say(step, "stopped" if is_stopped else f"FAILED: {error}")
        if event is not None and (event.is_step_success or event.is_step_failure or event.is_step_skipped):
            self._running.pop(step, None)

    def _note(self, step: str, text: str) -> None:
        if self._live is None:
            self._say(step, text)
        elif step in self._running:
            self._running[step][0].update(text=Text(text))

    def _say(self, step: str, text: str) -> None:
        line = f"{self._day}  {step:<24} {text}"
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)

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

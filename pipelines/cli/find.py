"""`ringcx-archive find`: finds calls, and says where their recordings are or why they are not held."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pyarrow as pa

from pipelines import storage
from pipelines.cli.call_filters import filters, query_of, search_terms
from pipelines.cli.options import Dependencies, file_option, subcommand, whole_file, write_json
from pipelines.compliance.access_log import Access, AccessLog
from pipelines.process_tuning import tune_allocator
from pipelines.settings import StorageSettings, load
from pipelines.steps.calls.csv_file import write_csv
from pipelines.steps.calls.search import CallSearch, sentence_of_lacking
from pipelines.steps.calls.table import CALLS_SCHEMA
from pipelines.wording import number, reason_in_words

FORMAT = "ringcx-archive/find/1"
_COLUMNS = {
    "started (local)": ("started_local", 19),
    "direction": ("direction", 9),
    "ani": ("ani", 16),
    "dnis": ("dnis", 16),
    "agent": ("agent_name", 18),
    "queue": ("queue_name", 16),
    "length": ("segment_s", 8),
    "layout": ("layout", 6),
    "state": ("state", 8),
    "uii": ("uii", 30),
    "why not held": ("reason", 60),
}
SHOWN = ["date", "account_id", "call_s", *(name for name, _ in _COLUMNS.values())]
"""The columns that are read when only the table is shown."""


@subcommand(
    "find --number '(602) 555-0142'",
    "find --from 2026-11-01 --to 2026-11-22 --agent 'Grace Hopper' --longest 60",
    "find --uii 202611211915400151600000000029 --json found.json",
)
@filters
@click.option(
    "--limit", default=200, type=click.IntRange(1, 1_000_000), help="Show at most this many rows; default 200."
)
@file_option("what was found")
@file_option("what was found, as a table for a spreadsheet,", "--csv", "csv_file")
def command(dependencies: Dependencies, /, limit: int, file: Path | None, csv_file: Path | None, **asked: Any) -> int:  # noqa: ANN401
    """Find calls by number, agent, queue, text, UII or recording: the newest first, a row for each recording.

    Without --from and --to: all dates up to yesterday. The search is written to the access log first. Exit code 0:
    something was found; 1: nothing was; 3: some of the dates were not searched, or only in part, so calls may be
    missing from the result.
    """
    tune_allocator()
    settings, now = load(StorageSettings), dependencies.clock()
    query = query_of(settings, now, **asked)
    bucket, _ = storage.open_stores(settings, dependencies.s3, dependencies.clock)
    details = search_terms({**asked, "first": query.first, "last": query.last})
    AccessLog(bucket).record(Access.of_command(now, "search", details))
    search = CallSearch(bucket, settings)
    files = search.files(query)
    found = search.find(query, files, limit=limit + 1, columns=CALLS_SCHEMA.names if file or csv_file else SHOWN)
    more, found = found.num_rows > limit, found.slice(0, limit)
    lacking = search.not_searched(query, files)
    for line in _lines(found):
        click.echo(line)
    click.echo(sentence := _sentence(found, more=more, limit=limit))
    if lacking:
        click.echo(sentence_of_lacking(lacking))
    head = {"format": FORMAT, "from": query.first, "to": query.last, "asked_at": now, "sentence": sentence}
    write_json(file, {**head, "more": more, "not_indexed": lacking, "calls": found.to_pylist() if file else ()})
    if csv_file is not None:
        with whole_file(csv_file, newline="") as into:
            write_csv(found, into)
    return 3 if lacking else 0 if found.num_rows else 1


def _lines(found: pa.Table) -> Iterator[str]:
    if found.num_rows:
        yield "  ".join(title.ljust(width) for title, (_, width) in _COLUMNS.items()).rstrip()
    for row in found.select(SHOWN).to_pylist():
        yield "  ".join(_cell(row, name, width) for name, width in _COLUMNS.values()).rstrip()


def _cell(row: dict[str, Any], name: str, width: int) -> str:
    value = row[name]
    if name == "segment_s":
        seconds = row["call_s"] if value is None else value
        value = None if seconds is None else str(timedelta(seconds=round(min(seconds, 1e9))))
    elif name == "reason" and value:
        value = reason_in_words(value, row["state"])
    elif name == "started_local" and value:
        value = f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M:%S}"
    # What the source wrote must not move a terminal's cursor.
    text = "".join(character if character.isprintable() else " " for character in value or "")
    return (text if len(text) <= width else f"{text[: width - 1]}…").ljust(width)


def _sentence(found: pa.Table, *, more: bool, limit: int) -> str:
    if not found.num_rows:
        return "No call was found."
    calls = found.group_by(["account_id", "uii"]).aggregate([]).num_rows
    sentence = f"{number(found.num_rows, 'row')} of {number(calls, 'call')}."
    return f"{sentence} There are more: narrow the search, or set --limit above {limit}." if more else sentence

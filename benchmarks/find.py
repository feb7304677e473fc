"""Looking for a call, with figures: `python benchmarks/find.py [--calls N] [--days N] [--folder DIR] [--json FILE]`.

Generates the table `calls`, serves it by a local S3, indexes its months, and looks for a number, a part of one, an
agent, a UII and a rare note: by `CallSearch` through S3, and in the straightforward ways of DuckDB and pandas, which
get the same files from the local disk: a head start, since both would need an S3 reader of their own. Each line is a
process of its own: `cold` is its first search, `warm` the median of three more for other values, `MB` its peak memory.
Never fails on time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe, peak_mb

from pipelines.archive.bucket import Bucket
from pipelines.archive.client import make_s3_client
from pipelines.cli.find import SHOWN
from pipelines.process_tuning import tune_allocator
from pipelines.settings import StorageSettings
from pipelines.steps.calls.month_index import index_months
from pipelines.steps.calls.search import CallSearch, Query
from pipelines.steps.calls.table import CALLS_FILE_SCHEMA, encode
from sandbox.s3 import LocalS3

LAST = date(2026, 11, 22)
AGENTS = 600
CALLERS = 2_000_000
QUESTIONS = ("number", "part", "agent", "rare agent", "uii", "notes")
_BUCKET = "ringcx-archive"


def calls_of(day: date, count: int) -> pa.Table:
    """Calls of a date, each with a recording; the same date always has the same ones."""
    chance = np.random.default_rng(day.toordinal())
    seconds = np.sort(chance.integers(0, 86_400, count))
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    starts = [midnight + timedelta(seconds=int(second)) for second in seconds]
    local = (f"{start - timedelta(hours=5):%Y%m%d%H%M%S}" for start in starts)
    uiis = [f"{stamp}0151600{number:09d}" for number, stamp in enumerate(local)]
    callers = [f"+1602{2_000_000 + number}" for number in chance.integers(0, CALLERS, count)]
    agents = chance.integers(0, AGENTS, count)
    if day.day == 9:  # an agent who helps out once a month
        agents[0] = AGENTS
    lengths = chance.integers(10, 900, count).astype(float)
    notes = [f"ticket {number}" if number % 3 == 0 else None for number in chance.integers(0, 10**9, count)]
    prefix = f"recordings/date={day}/account_id=15300002/layout=stereo/"
    constant = {
        "account_id": "15300002",
        "session": "2",
        "direction": "inbound",
        "dnis": "+18005550100",
        "dnis_e164": "+18005550100",
        "queue_id": "41001",
        "queue_name": "Billing",
        "disposition": "Resolved",
        "layout": "stereo",
        "state": "archived",
        "verdict": "complete",
        "manifest_sha256": "a" * 64,
    }
    columns = {
        **{name: [value] * count for name, value in constant.items()},
        "started_at": starts,
        "started_local": [start.isoformat() for start in starts],
        "uii": uiis,
        "ani": [number.removeprefix("+1") for number in callers],
        "ani_e164": callers,
        "agent_id": [str(1_300_000 + agent) for agent in agents],
        "agent_login": [f"agent{agent}@example.com" for agent in agents],
        "agent_name": [f"Ava Agent {agent}" for agent in agents],
        "notes": notes,
        "call_s": lengths + 20,
        "segment_s": lengths,
        "hold_s": np.zeros(count),
        "wrap_s": np.full(count, 15.0),
        "recording_id": [f"15300002/perspective/{uii}-session-2-stereo.WAV" for uii in uiis],
        "key": [f"{prefix}{uii}-session-2-stereo.WAV" for uii in uiis],
        "size": chance.integers(100_000, 3_000_000, count),
        "sha256": [row.tobytes().hex() for row in chance.integers(0, 256, (count, 32), np.uint8)],
        "manifest_number": [1] * count,
        "warnings": [[]] * count,
    }
    missing = {name: pa.nulls(count, CALLS_FILE_SCHEMA.field(name).type) for name in CALLS_FILE_SCHEMA.names}
    return pa.table(
        {
            name: pa.array(columns[name], CALLS_FILE_SCHEMA.field(name).type) if name in columns else missing[name]
            for name in CALLS_FILE_SCHEMA.names
        }
    )


def generate(folder: Path, calls: int, days: int) -> int:
    """Write the table, unless it is there; return its bytes."""
    size = 0
    for back in range(days):
        day = LAST - timedelta(days=back)
        file = folder / "calls" / f"date={day}" / "calls.parquet"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(calls_of(day, calls // days)))
        size += file.stat().st_size
    return size


def wanted(folder: Path, days: int) -> dict[str, list[str]]:
    """Values to look for, four for each question, from dates all over the table."""
    found: dict[str, list[str]] = {question: [] for question in QUESTIONS}
    for place in range(4):
        day = LAST - timedelta(days=(2 * place + 1) * days // 8)
        table = pq.read_table(
            folder / "calls" / f"date={day}" / "calls.parquet", columns=["ani_e164", "uii", "agent_id", "notes"]
        )
        row = table.slice(table.num_rows // 2 + place, 1).to_pylist()[0]
        found["number"].append(row["ani_e164"])
        found["part"].append(row["ani_e164"][-6:])
        found["agent"].append(row["agent_id"])
        found["rare agent"].append(str(1_300_000 + AGENTS))
        found["uii"].append(row["uii"])
        found["notes"].append(next(text for text in table["notes"].to_pylist()[place:] if text)[7:])
    return found


def by_search(question: str, _folder: str, first: date) -> Callable[[str], int]:
    """`CallSearch`, through S3, as `ringcx-archive find` asks it."""
    settings = StorageSettings(archive_bucket=_BUCKET)
    search = CallSearch(Bucket(make_s3_client(max_connections=16), _BUCKET, ""), settings)
    name = {"part": "number", "rare agent": "agent"}.get(question, question)

    def find(value: str) -> int:
        query = Query(first=first, last=LAST, **{name: value})
        files = search.files(query)
        found = search.find(query, files, columns=SHOWN)
        assert not search.not_searched(query, files)
        return found.num_rows

    return find


_SQL = {
    "number": "ani_e164 = $value OR dnis_e164 = $value",
    "part": "contains(ani_e164, $value) OR contains(dnis_e164, $value)",
    "agent": "agent_id = $value OR lower(agent_login) = $value OR contains(lower(agent_name), $value)",
    "uii": "uii = $value",
    "notes": "contains(lower(notes), $value)",
}


def by_duckdb(question: str, folder: str, _first: date) -> Callable[[str], int]:
    """`read_parquet` of all files."""
    condition = _SQL[question.removeprefix("rare ")]
    sql = (
        f"SELECT * FROM read_parquet('{folder}/calls/date=*/*.parquet', hive_partitioning = true) "
        f"WHERE {condition} ORDER BY date DESC, started_at DESC LIMIT 200"
    )
    database = duckdb.connect()
    return lambda value: len(database.execute(sql, {"value": value}).fetchall())


def by_pandas(question: str, folder: str, _first: date) -> Callable[[str], int]:
    """`read_parquet` of all files with a filter, where there is one for the question."""
    columns = {"number": "ani_e164", "agent": "agent_id", "rare agent": "agent_id", "uii": "uii"}

    def find(value: str) -> int:
        return len(pd.read_parquet(f"{folder}/calls", filters=[(columns[question], "==", value)]).head(200))

    return find


WAYS = {"search": by_search, "duckdb": by_duckdb, "pandas": by_pandas}


def measure(way: str, question: str, folder: str, first: str, values: list[str]) -> dict[str, float]:
    """Search four times in this process; what is before the first search is the start of any command."""
    if way == "search":
        tune_allocator()  # as the command does
    find = WAYS[way](question, folder, date.fromisoformat(first))
    seconds, rows = [], 0
    for value in values:
        started = time.perf_counter()
        rows += find(value)
        seconds.append(time.perf_counter() - started)
    memory = peak_mb()
    return {"cold": seconds[0], "warm": statistics.median(seconds[1:]), "mb": memory, "rows": rows}


def main() -> None:
    """Measure all, print a table."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--calls", type=int, default=10_000_000)
    arguments.add_argument("--days", type=int, default=3 * 365 + 1)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--ways", default=",".join(WAYS))
    arguments.add_argument("--json", type=Path)
    asked = arguments.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.folder or Path(temporary)) / _BUCKET
        size = generate(folder, asked.calls, asked.days)
        print(f"{asked.calls:,} calls on {asked.days:,} dates, {size / 1e6:,.0f} MB")
        values, first = wanted(folder, asked.days), str(LAST - timedelta(days=asked.days - 1))
        results = []
        with LocalS3(folder.parent, bucket=_BUCKET) as server:
            for name, value in server.environment().items():
                os.environ[name] = value
            started = time.perf_counter()
            bucket = Bucket(make_s3_client(max_connections=16), _BUCKET, "")
            months = len(list(index_months(bucket, date.fromisoformat(first), LAST)))
            print(f"{months} months indexed in {time.perf_counter() - started:.1f} s")
            print(f"{'way':<8}{'question':<12}{'cold s':>8}{'warm s':>8}{'MB':>8}{'rows':>8}")
            for question in QUESTIONS:
                for way in asked.ways.split(","):
                    if way == "pandas" and question in {"part", "notes"}:
                        continue  # its filters know no part of a text, and the whole table is no answer
                    task = json.dumps([way, question, str(folder), first, values[question]])
                    ran = subprocess.run(
                        [sys.executable, __file__, "--measure", task],
                        env={**os.environ, **server.environment(), "PYTHONPATH": str(Path(__file__).parents[1])},
                        check=True, capture_output=True, text=True,
                    )  # fmt: skip
                    result = json.loads(ran.stdout)
                    results.append({"way": way, "question": question, **result})
                    cells = (f"{result[name]:>8.2f}" for name in ("cold", "warm"))
                    print(f"{way:<8}{question:<12}{''.join(cells)}{result['mb']:>8.0f}{result['rows']:>8}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*json.loads(sys.argv[2]))))
    else:
        main()

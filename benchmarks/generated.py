"""Report bodies, ledgers and buckets that look like real ones, of any size, and a source that answers with them.

Made by numpy and pyarrow and not row by row, so that a million rows take seconds. The same size gives the same day.
"""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from pipelines.ledger.schema import PullRecord
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger

ACCOUNT = "15300002"
_ANY: Any = pc
_HEADINGS = (
    *("Account ID", "UII", "Session ID", "ANI", "DNIS", "Call Type", "Agent ID", "Agent Login ID", "Agent First Name"),
    *("Agent Last Name", "Agent Username", "Product Type", "Product ID", "Product Name", "Enqueue Dts", "Dequeue Dts"),
    *("Queue Duration", "Start Dts", "End Dts", "Duration", "Wrap Time", "Dial Dts", "Dial Duration", "Hold Duration"),
    *("Agent Wait Duration", "Term Party", "Term Reason", "Agent Disposition", "Segment Recording File Name"),
    "Segment Recording URL",
)


def segments(day: date, rows: int, *, changed: float = 0.0, direction: int = 0) -> pa.Table:
    """`rows` rows of Agent Segment Metadata, 30 columns; the last `changed` share has another disposition."""
    place = np.arange(rows)
    random = np.random.default_rng(day.toordinal() * 2 + direction)
    second = np.sort(random.integers(0, 86_400, rows))
    talk = random.integers(5, 1800, rows)
    uii = _joined(f"{day:%Y%m%d}", _padded(_hms(second, ""), 6), f"0{direction + 1}", _padded(place, 14))
    session = pa.array((2 + place % 3).astype(str))
    name = _joined(uii, "-session-", session, "-stereo.WAV")
    path = f"perspective/{ACCOUNT}/{day:%Y%m}/{day:%d}/"
    url = _joined(
        "https://aws46-recordings.vacd.biz/api/v1/calls/recordings?v=1&accountId=",
        f"{ACCOUNT}&bucket=aws46-recordings&region=us-west-2&compliance=true&file={path}",
        name,
    )
    agent = random.integers(1000, 1400, rows)
    stamp = _joined(f"{day:%m/%d/%Y} ", _hms(second, ":"))
    disposition = np.where(place < rows * (1 - changed), "Resolved, no further action", "Resolved, called back")
    columns: list[Any] = [
        _same(ACCOUNT, rows),
        _joined("'", uii),
        session,
        _joined("+1602", _padded(random.integers(0, 10**7, rows), 7)),
        _joined("+1888", _padded(random.integers(0, 300, rows), 7)),
        _same(("INBOUND", "OUTBOUND")[direction], rows),
        pa.array(agent.astype(str)),
        _joined("agent.", agent.astype(str)),
        _joined("First", (agent % 97).astype(str)),
        _joined("Last", (agent % 389).astype(str)),
        _joined("agent.", agent.astype(str), "@example.com"),
        _same("QUEUE", rows),
        pa.array((60_000 + agent % 40).astype(str)),
        _joined("Customer care ", (agent % 40).astype(str)),
        *(stamp, stamp, _joined(_hms(talk % 90, ":")), stamp, stamp),
        *(_joined(_hms(talk, ":")), _joined(_hms(talk % 60, ":")), stamp, _joined(_hms(talk % 20, ":"))),
        *(_joined(_hms(talk % 45, ":")), _joined(_hms(talk % 300, ":"))),
        *(_same("CALLER", rows), _same("Caller hung up", rows), pa.array(disposition), name, url),
    ]
    return pa.table(columns, names=list(_HEADINGS))


def write_report(day: date, rows: int, folder: Path, *, changed: float = 0.0) -> list[Path]:
    """The two bodies of a day's Agent Segment Metadata, inbound and outbound, `rows` rows together."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for direction, size in enumerate((rows - rows // 2, rows // 2)):
        paths.append(folder / f"{direction}.csv")
        pa_csv.write_csv(segments(day, size, changed=changed, direction=direction), paths[-1])
    return paths


class Source(ThreadingHTTPServer):
    """Answers report requests with the bodies it was given, inbound and outbound, and counts every other request."""

    daemon_threads = True

    def __init__(self, bodies: list[Path]) -> None:
        self.bodies = bodies
        self.others = 0
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def url(self) -> str:
        """Its base address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Source

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        body = self.server.bodies[b"Outbound" in asked]
        self.send_response(200)
        self.send_header("Content-Type", "text/csv")
        self.send_header("Content-Length", str(body.stat().st_size))
        self.end_headers()
        with body.open("rb") as file:
            shutil.copyfileobj(file, self.wfile, 1 << 20)

    def do_GET(self) -> None:
        self.server.others += 1
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def history(ledger: Ledger, before: date, years: int) -> int:
    """Write small days for that many years, each with rows, a pull and a state; return the number of dates."""
    days = 365 * years
    for back in range(1, days + 1):
        day = before - timedelta(days=back)
        at = datetime.combine(day, datetime.min.time(), UTC)
        row = pa.table({"row_key": ["k"], "row_hash": ["h"], "uii": ["u"]})
        ledger.append_rows("agent_segment_metadata", day, row, account_id=ACCOUNT, pulled_at=at, run_id="history")
        ledger.append_pull(a_pull(day, at))
        ledger.append_states([a_state(f"{day}-1", day, at)])
    return days


def a_pull(day: date, at: datetime) -> PullRecord:
    """The trace of a pull of the whole day."""
    start = datetime.combine(day, datetime.min.time(), UTC)
    return PullRecord(
        report="agent_segment_metadata",
        day=day,
        account_id=ACCOUNT,
        period_start=start,
        period_end=start + timedelta(days=1),
        pulled_at=at,
        run_id="history",
        **dict.fromkeys(("size", "rows", "new", "changed", "unchanged", "vanished", "with_link"), 0),  # type: ignore[arg-type]
        sha256="",
    )


def a_state(recording_id: str, day: date, at: datetime) -> RecordingState:
    """A recording that waits."""
    return RecordingState(
        recording_id=recording_id,
        account_id=ACCOUNT,
        uii=recording_id,
        layout="stereo",
        source="agent_segment_metadata",
        date=day,
        status=Status.pending,
        next_attempt_at=at + timedelta(days=9999),
        run_id="history",
        written_at=at,
        link="https://aws46-recordings.vacd.biz/x.WAV",
        found_on=day,
        first_seen_at=at,
    )


def _joined(*parts: object) -> pa.Array[Any]:
    values: list[Any] = [part if isinstance(part, str) else pa.array(part) for part in parts]  # type: ignore[arg-type]
    joined: pa.Array[Any] = _ANY.binary_join_element_wise(*values, "")
    return joined


def _same(text: str, rows: int) -> pa.Array[Any]:
    return pa.repeat(pa.scalar(text), rows)


def _padded(numbers: object, width: int) -> pa.Array[Any]:
    padded: pa.Array[Any] = _ANY.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")
    return padded


def _hms(seconds: npt.NDArray[np.int64], sign: str) -> pa.Array[Any]:
    parts = (_padded(seconds // 3600, 2), _padded(seconds // 60 % 60, 2), _padded(seconds % 60, 2))
    joined: pa.Array[Any] = _ANY.binary_join_element_wise(*parts, sign)
    return joined

"""Days that look like real ones, of any size: report bodies, a source that answers with them, states, years of ledger.

Made by numpy and pyarrow and not row by row, so that a million rows take seconds. Deterministic: the same size gives the
same day.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

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


def _joined(*parts: Any) -> pa.Array[Any]:
    values = [part if isinstance(part, str) else pa.array(part) for part in parts]
    joined: pa.Array[Any] = _ANY.binary_join_element_wise(*values, "")
    return joined


def _same(text: str, rows: int) -> pa.Array[Any]:
    return pa.repeat(pa.scalar(text), rows)


def _padded(numbers: Any, width: int) -> pa.Array[Any]:
    padded: pa.Array[Any] = _ANY.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")
    return padded


def _hms(seconds: Any, sign: str) -> pa.Array[Any]:
    parts = (_padded(seconds // 3600, 2), _padded(seconds // 60 % 60, 2), _padded(seconds % 60, 2))
    joined: pa.Array[Any] = _ANY.binary_join_element_wise(*parts, sign)
    return joined

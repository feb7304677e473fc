"""Bodies of reports, made and parsed."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import strategies as st

from pipelines.ringcx.links import NO_LINK
from pipelines.ringcx.reports import csv_body
from pipelines.ringcx.reports.columns import ReportName
from pipelines.ringcx.reports.csv_body import read_csv_body
from pipelines.ringcx.reports.tables import parse_report

Row = dict[str, str | None]
Parse = Callable[..., pa.Table]

AGENT: Literal["agent_segment_metadata"] = "agent_segment_metadata"
GCTD: Literal["global_call_type_detail"] = "global_call_type_detail"
REPORTS: tuple[ReportName, ...] = (AGENT, GCTD)
DOCUMENTED_HEADING = (
    "Account ID,UII,Session ID,ANI,DNIS,Call Type,Agent ID,Agent Login ID,Agent First Name,Agent Last Name,"
    "Agent Username,Product Type,Product ID,Product Name,Enqueue Dts,Dequeue Dts,Queue Duration,Start Dts,End Dts,"
    "Duration,Wrap Time,Dial Dts,Dial Duration,Hold Duration,Agent Wait Duration,Term Party,Term Reason,"
    "Agent Disposition,Segment Recording File Name,Segment Recording URL"
)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NASTY = st.one_of(
    TEXT, st.text("\",\r\n \t'é漢", max_size=8), st.sampled_from(["NA", "null", "nan", "0012", "true", "-"])
)
ROWS = st.lists(st.lists(NASTY, min_size=4, max_size=4), max_size=8)

LINKS = [f"https://c01-recordings.vacd.biz/api?file=1/{name}.WAV" for name in "ab"]


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    def parse_bytes(report: ReportName, body: bytes | str, *, framed: bool = True) -> pa.Table:
        return parse_body(report, body, framed=framed, folder=tmp_path)

    return parse_bytes


def parse_body(report: ReportName, body: bytes | str, *, framed: bool = True, folder: Path | None = None) -> pa.Table:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary, "body")
        path.write_bytes(body.encode() if isinstance(body, str) else body)
        with path.open("rb") as file:
            return parse_report(report, file, framed=framed)


def filled(table: pa.Table) -> list[Row]:
    """The rows without their empty columns."""
    return [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]


def bare(uii: str) -> str:
    return re.sub(r"\A[ \t\r\n\f]*'?[ \t\r\n\f]*|[ \t\r\n\f]+\Z", "", uii)


def expected_rows(rows: Sequence[Sequence[str]], names: Sequence[str]) -> list[Row]:
    found = []
    for row in rows:
        cells = dict(zip(names, row, strict=True))
        cells["uii"] = bare(cells["uii"])
        if re.match(NO_LINK, cells["recording_url"]):
            cells["recording_url"] = ""
        found.append({name: value for name, value in cells.items() if value})
    return found


def as_csv(heading: Sequence[str], rows: Sequence[Sequence[str]], quoting: Literal[0, 1] = csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting)
    writer.writerow(heading)
    writer.writerows(rows)
    return text.getvalue()


def read_blocks(path: Path, size: int) -> tuple[list[str], pa.Table]:
    with path.open("rb") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_body, "BLOCK_BYTES", size)
        headings, table, _ = read_csv_body(file, framed=False)
    return headings, table

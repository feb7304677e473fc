"""The facts about a call in a row of any report, in the columns of the table `calls`.

A cell that cannot be read becomes None: no row stops a date.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from pipelines.ringcx.reports.columns import AGENT, DIRECTIONS, EVENTS, GLOBAL, INTERACTIONS, UII_COLUMN, ReportName
from pipelines.ringcx.reports.times import parse_hms, parse_ms, uii_time
from pipelines.steps.link.rows import ROWS, Cells, is_agents, is_flag_unknown, links_of, needed_columns, start_of

_RESULT: Final = re.compile(r"[A-Za-z][A-Za-z _-]{0,40}", re.ASCII)
_LENGTHS: Final = frozenset({"call_s", "segment_s", "hold_s", "wrap_s"})
REPORTS_OF_CALLS: Final[Sequence[ReportName]] = (AGENT, INTERACTIONS, GLOBAL, EVENTS)
"""The reports, in descending order of detail about an agent's leg."""

# Our column -> the columns of the report that may hold it, the best first.
_FIELDS: Final[Mapping[ReportName, Mapping[str, tuple[str, ...]]]] = {
    AGENT: {
        "session": ("session_id",),
        "direction": ("call_type", "product_type"),
        "ani": ("ani",),
        "dnis": ("dnis",),
        "agent_id": ("agent_id",),
        "agent_login": ("agent_username", "agent_login_id"),
        "queue_id": ("product_id",),
        "queue_name": ("product_name",),
        "disposition": ("agent_disposition",),
        "segment_s": ("duration",),
        "hold_s": ("hold_duration",),
        "wrap_s": ("wrap_time",),
    },
    INTERACTIONS: {
        "direction": ("dialog_origination",),
        "ani": ("channel_endpoint_address",),
        "dnis": ("contact_endpoint_address",),
        "agent_id": ("segment_participant_id",),
        "agent_name": ("agentfullname",),
        "queue_id": ("productid", "segment_agent_group_id"),
        "disposition": ("agent_disposition",),
        "notes": ("agent_notes",),
        "call_s": ("dialog_duration_ms",),
        "segment_s": ("segment_duration_ms",),
        "result": ("callresult", "system_disposition"),
    },
    GLOBAL: {
        "direction": ("source_type",),
        "ani": ("ani",),
        "dnis": ("dnis",),
        "agent_id": ("connect_id",),
        "agent_name": ("connected_name",),
        "queue_id": ("source_id",),
        "queue_name": ("source_name",),
        "disposition": ("connected_disposition", "final_disposition"),
        "notes": ("call_notes",),
        "call_s": ("call_duration",),
        "result": ("call_result", "call_status"),
    },
    EVENTS: {
        "direction": ("event_type",),
        "ani": ("ani",),
        "dnis": ("dnis",),
        "agent_id": ("agent_id",),
        "agent_login": ("username",),
        "queue_id": ("gate_id",),
        "queue_name": ("gate_name",),
        "disposition": ("agent_disposition",),
        "call_s": ("call_duration",),
        "result": ("call_state",),
    },
}
_EXTRA_COLUMNS: Final[Mapping[ReportName, tuple[str, ...]]] = {
    AGENT: ("agent_first_name", "agent_last_name"),
    GLOBAL: ("connected_route",),
}


class Leg(NamedTuple):
    """The facts about a call in one row. Lengths are in seconds; `pulled` is the date whose pull returned the row.

    `uii`: the call's, or a substitute if the row has none. `recordings`: the ids of the recordings that the row names.
    `result`: how the call ended, in the source's words.
    """

    report: ReportName
    row_key: str
    pulled: date
    account_id: str
    uii: str
    started_at: datetime | None
    recordings: tuple[str, ...]
    is_flag_unknown: bool = False
    session: str | None = None
    direction: str | None = None
    ani: str | None = None
    dnis: str | None = None
    agent_id: str | None = None
    agent_login: str | None = None
    agent_name: str | None = None
    queue_id: str | None = None
    queue_name: str | None = None
    disposition: str | None = None
    notes: str | None = None
    call_s: float | None = None
    segment_s: float | None = None
    hold_s: float | None = None
    wrap_s: float | None = None
    result: str | None = None

    @property
    def call(self) -> tuple[str, str]:
        """The key of the call to which the leg belongs."""
        return self.account_id, self.uii.lower()


def key_columns_of(report: ReportName) -> list[str]:
    """Return the columns of a report that `call_of` and `begins` read."""
    return ["account_id", "row_key", UII_COLUMN[report], ROWS[report].start]


def call_of(report: ReportName, row: Cells) -> tuple[str, str]:
    """Return the key of the call to which a row belongs, as `Leg.call` does."""
    return row["account_id"] or "", _uii(report, row).lower()


def begins(report: ReportName, row: Cells) -> datetime | None:
    """Return when a row's call or leg began, from the row or else from its UII."""
    return start_of(report, row) or uii_time(row[UII_COLUMN[report]])


def columns_of(report: ReportName) -> list[str]:
    """Return the columns of a report that `leg_of` reads."""
    fields = [name for names in _FIELDS[report].values() for name in names]
    columns = [*key_columns_of(report), *needed_columns(report), *fields, *_EXTRA_COLUMNS.get(report, ())]
    return list(dict.fromkeys(columns))


def leg_of(report: ReportName, row: Cells, pulled: date) -> Leg | None:
    """Return the facts about a call in a row, or None for a message, which is not a call."""
    if report == INTERACTIONS and row["channel_class"] == "DIGITAL":
        return None
    found: dict[str, Any] = {name: _first(row, columns) for name, columns in _FIELDS[report].items()}
    seconds = parse_ms if report == INTERACTIONS else parse_hms
    for name in _LENGTHS & found.keys():
        found[name] = seconds(found[name])
    direction = (found.pop("direction") or "").lower()
    if report == AGENT:
        found["agent_name"] = " ".join(filter(None, (_text(row["agent_first_name"]), _text(row["agent_last_name"]))))
    elif report == INTERACTIONS:
        found["session"] = f"{row['dialog_id'] or ''}/{row['segment_id'] or ''}"
        if not is_agents(report, row):
            found["agent_id"] = None
    elif report == GLOBAL and (row["connected_route"] or "AGENT").upper() != "AGENT":
        found["agent_id"] = found["agent_name"] = None  # connected to a number or a menu
    if found.get("agent_id") == "0":
        found["agent_id"] = None
    return Leg(
        report=report,
        row_key=row["row_key"] or "",
        pulled=pulled,
        account_id=row["account_id"] or "",
        uii=_uii(report, row),
        started_at=begins(report, row),
        recordings=tuple(link.recording_id for link in links_of(report, row)),
        is_flag_unknown=report == INTERACTIONS and is_flag_unknown(row),
        direction=DIRECTIONS.get(direction),
        **{name: None if value == "" else value for name, value in found.items()},
    )


def reason_without_recording(legs: Iterable[Leg]) -> str:
    """Return why a call has no recording, according to its rows: `no_link`, `flag_unknown`, or `no_link:<result>` with
    the source's word for how the call ended.
    """
    legs = list(legs)
    if any(leg.is_flag_unknown for leg in legs):
        return "flag_unknown"
    results = (leg.result for leg in legs if leg.result and _RESULT.fullmatch(leg.result))
    result = next(results, None)
    return f"no_link:{result.lower().replace(' ', '_')}" if result else "no_link"


def _uii(report: ReportName, row: Cells) -> str:
    # Rows without a UII are separate calls: each must be found by itself.
    return _text(row[UII_COLUMN[report]]) or f"row-{hashlib.sha256((row['row_key'] or '').encode()).hexdigest()[:32]}"


def _first(row: Cells, columns: Iterable[str]) -> str | None:
    return next((text for column in columns if (text := _text(row[column]))), None)


def _text(cell: str | None) -> str:
    return (cell or "").strip()

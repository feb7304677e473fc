"""The canonical names of each report's columns, however the source spells them, and the columns a report must have."""

from collections.abc import Container, Iterable, Mapping
from functools import cache
from itertools import chain, count
from typing import Final, Literal

ReportName = Literal["agent_segment_metadata", "global_call_type_detail", "interaction_metadata", "end_call_events"]
AGENT: Final[ReportName] = "agent_segment_metadata"
GLOBAL: Final[ReportName] = "global_call_type_detail"
INTERACTIONS: Final[ReportName] = "interaction_metadata"
EVENTS: Final[ReportName] = "end_call_events"

_DOCUMENTED: Final[dict[ReportName, str]] = {
    "agent_segment_metadata": """
        report_account_id uii session_id ani dnis call_type agent_id agent_login_id agent_first_name agent_last_name
        agent_username product_type product_id product_name enqueue_dts dequeue_dts queue_duration start_dts end_dts
        duration wrap_time dial_dts dial_duration hold_duration agent_wait_duration term_party term_reason
        agent_disposition segment_recording_file_name segment_recording_url
    """,
    "global_call_type_detail": """
        uii source_type source_group_id source_group_name source_id source_name source_description ani dnis call_status
        call_result queue_time call_duration call_term_party call_term_reason billing_code call_notes connect_id
        connected_name connected_route connected_duration connected_disposition final_disposition connected_term_party
        connected_term_reason connected_extern_id recording_url dial_type json_result call_start_dts call_end_dts
        connected_dts
    """,
    "interaction_metadata": """
        sub_account_id dialog_id interaction_id channel_id channel_type channel_class channel_endpoint_address
        contact_endpoint_address dialog_origination dialog_start_time_ms dialog_end_time_ms dialog_duration_ms
        segment_id segment_type segment_participant_id segment_participant_rc_extension_id segment_start_time_ms
        segment_end_time_ms segment_duration_ms segment_agent_group_id system_disposition agent_disposition agent_notes
        has_recording has_transcript segment_events segment_recording_url interaction_recording_location
    """,
    "end_call_events": """
        uii report_account_id event_type call_state call_start call_duration queue_duration agent_disposition gate_id
        gate_name dnis ani agent_id external_agent_id username recording_url
    """,
}
COLUMNS: Final = {report: tuple(names.split()) for report, names in _DOCUMENTED.items()}
"""The documented columns of each report under their canonical names, in the documented order."""

_VERSION_2: Final = {
    "uii": "interaction_id",
    "interaction_start_time_ms": "dialog_start_time_ms",
    "interaction_end_time_ms": "dialog_end_time_ms",
    "interaction_duration_ms": "dialog_duration_ms",
    "call_type": "dialog_origination",
    "ani": "contact_endpoint_address",
    "dnis": "channel_endpoint_address",
    "agent_id": "segment_participant_id",
}
"""The columns that version 2 of the current API names differently."""

LINK_COLUMN: Final[dict[ReportName, str]] = {
    "agent_segment_metadata": "segment_recording_url",
    "global_call_type_detail": "recording_url",
    "interaction_metadata": "has_recording",
    "end_call_events": "recording_url",
}
"""The column of each report with the address of a recording, or with the flag that one exists."""

UII_COLUMN: Final[dict[ReportName, str]] = dict.fromkeys(COLUMNS, "uii") | {"interaction_metadata": "interaction_id"}
"""The column of each report that names the call."""

DIRECTIONS: Final = {
    "inbound": "inbound",
    "outbound": "outbound",
    "gate": "inbound",
    "acd-call": "inbound",
    "campaign": "outbound",
}
"""The direction of a call by each report's own word for it, in lower case."""

LEGACY: Final[tuple[ReportName, ...]] = (AGENT, GLOBAL)
CURRENT: Final[tuple[ReportName, ...]] = (INTERACTIONS,)
REPORTS: Final = (*LEGACY, *CURRENT)
"""The reports that are pulled. No date is complete by End Call Events, which may be lost on their way."""

LEDGER_COLUMNS: Final = ("row_key", "row_hash", "account_id", "pulled_at", "run_id", "report", "date")
"""Names of columns that the ledger adds to a report's own, or has in its folders' names.

A report's column of that name gets the prefix `report_`.
"""


def required(report: ReportName) -> tuple[str, ...]:
    """Return the columns that the report always has."""
    key = ("dialog_id", "segment_id") if report == "interaction_metadata" else ("uii",)
    return (*key, LINK_COLUMN[report])


def fold(heading: str) -> str:
    """Drop case, blanks, underscores, hyphens and byte order marks: `Recording URL` and `recordingUrl` are the same."""
    return "".join(c for c in heading.casefold() if not c.isspace() and c not in "_-\ufeff")


def canonical_name(report: ReportName, heading: str) -> str:
    """Return the documented name of a heading, or the folded heading (`unnamed` if nothing is left of it)."""
    folded = fold(heading)
    return _names_by_fold(report).get(folded, folded) or "unnamed"


@cache
def _names_by_fold(report: ReportName) -> Mapping[str, str]:
    ours = {fold(name): name for name in COLUMNS[report]}
    if report == "interaction_metadata":
        ours |= {fold(alias): name for alias, name in _VERSION_2.items()}
    return ours | {fold(name): f"report_{name}" for name in LEDGER_COLUMNS}


def canonical_names(report: ReportName, headings: Iterable[str]) -> list[str]:
    """Return the canonical names of all headings, in order; the second of two equal names gets `_2`, the third `_3`."""
    names: dict[str, None] = {}
    for heading in headings:
        names[free_name(canonical_name(report, heading), names)] = None
    return list(names)


def free_name(name: str, taken: Container[str]) -> str:
    """Return the first of `name`, `name_2`, `name_3`, … that is not in `taken`."""
    return next(free for free in chain([name], (f"{name}_{n}" for n in count(2))) if free not in taken)

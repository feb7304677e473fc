"""Rows of the table `calls` as the templates show them to a person: masked, in words, grouped by call."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from itertools import chain
from typing import Any, Final
from urllib.parse import quote

from pipelines.browser.people import Person
from pipelines.evidence.package import in_time
from pipelines.steps.calls.table import SEPARATOR, Row
from pipelines.wording import number, reason_in_words

_HELD_OR_NOT = ("archived", "pending", "missing", "rejected", "denied")
STATES: Final[Mapping[str, str]] = {**{state: state for state in _HELD_OR_NOT}, "none": "no recording"}
"""The states of a recording, and how the page calls them."""


def calls_view(rows: Iterable[Row], person: Person) -> list[dict[str, Any]]:
    """Group rows by call, in their order, and show each as the person may see it."""
    by_call: dict[tuple[date, str, str], list[Row]] = {}
    for row in rows:
        by_call.setdefault((row["date"], row["account_id"], row["uii"]), []).append(row)
    return [call_view(sorted(call, key=in_time), person) for call in by_call.values()]


def call_view(rows: Sequence[Row], person: Person) -> dict[str, Any]:
    """Return the view of one call from its rows (at least one). `path`: the address of its page."""
    first = rows[0]
    day, _, clock = (first["started_local"] or str(first["date"])).partition("T")
    account_id = first["account_id"]
    uii = first["uii"]
    longest = max(row["call_s"] or row["segment_s"] or 0 for row in rows)
    notes = dict.fromkeys(row["notes"] for row in rows if row["notes"])
    return {
        "date": first["date"],
        "day": day,
        "time": clock[:8],
        "account_id": account_id,
        "uii": uii,
        "path": f"/calls/{first['date']}/{quote(account_id, safe='')}/{quote(uii, safe='')}",
        "agent": person.free_text(_distinct(rows, "agent_name")) or _distinct(rows, "agent_id"),
        "queue": person.free_text(_distinct(rows, "queue_name")) or _distinct(rows, "queue_id"),
        "disposition": person.free_text(_distinct(rows, "disposition")),
        "direction": _distinct(rows, "direction"),
        "numbers": (person.number(first["ani"]), person.number(first["dnis"])),
        "length": duration(longest or None),
        "notes": person.free_text("\n".join(notes)),
        "recordings": [_recording(row, index, person) for index, row in enumerate(rows, start=1)],
    }


def duration(seconds: float | None) -> str:
    """Return seconds as people read them: `4:31`, `1:02:03`, or nothing for None."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _recording(row: Row, index: int, person: Person) -> dict[str, Any]:
    """Return the view of a row. `state`: as in the glossary; `said`: the same in words, with the reason for a loss."""
    reason = row["reason"]
    said = STATES.get(row["state"], row["state"] or "unknown")
    if row["state"] != "archived" and reason:
        said = f"{said}: {reason_in_words(reason, row['state'])}"
    return {
        "recording_id": row["recording_id"] or "",
        "title": f"Recording {index}" if row["recording_id"] else "No recording",
        "layout": row["layout"] or "",
        "state": row["state"] or "",
        "said": said,
        "agent": person.free_text(row["agent_name"]) or row["agent_id"] or "",
        "length": duration(row["segment_s"]),
        "facts": [(name, str(text)) for name, text in _facts(row, said, person) if text],
        "warnings": row["warnings"] or (),
        "channels": _channels(row),
        "may_hear": row["state"] == "archived" and bool(row["key"]) and person.may_hear(row),
    }


def _facts(row: Row, said: str, person: Person) -> tuple[tuple[str, str | None], ...]:
    started: datetime | None = row["started_at"]
    manifest = row["manifest_number"]
    return (
        ("Agent", _named(person.free_text(row["agent_name"]), row["agent_id"])),
        ("Agent login", person.free_text(row["agent_login"])),
        ("Queue or campaign", _named(person.free_text(row["queue_name"]), row["queue_id"])),
        ("Started", (row["started_local"] or "").replace("T", " ")),
        ("Started (UTC)", f"{started:%Y-%m-%d %H:%M:%S}" if started else ""),
        ("Session", person.free_text(row["session"])),
        ("Length", duration(row["segment_s"])),
        ("Hold", duration(row["hold_s"])),
        ("Wrap-up", duration(row["wrap_s"])),
        ("Disposition", person.free_text(row["disposition"])),
        ("Recording id", row["recording_id"]),
        ("State", said),
        ("Date's verdict", row["verdict"]),
        ("Size", "" if row["size"] is None else _size(row["size"])),
        ("SHA-256", row["sha256"]),
        ("Object", row["key"]),
        ("Version", row["version_id"]),
        ("Manifest", f"number {manifest} of {row['date']}" if manifest else ""),
    )


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"


def _channels(row: Row) -> tuple[str, ...]:
    if row["layout"] != "stereo":
        return ("Everybody",)
    if row["agent_channel"] not in {1, 2}:
        return ("Left channel", "Right channel")
    return ("Agent", "Customer") if row["agent_channel"] == 1 else ("Customer", "Agent")


def _named(name: str | None, identity: str | None) -> str:
    return f"{name} ({identity})" if name and identity else name or identity or ""


def _distinct(rows: Iterable[Row], column: str) -> str:
    """Return each agent, queue or disposition of a call once; a recording of a whole call names several."""
    names = chain.from_iterable(row[column].split(SEPARATOR) for row in rows if row[column])
    return SEPARATOR.join(dict.fromkeys(names))


def found_sentence(calls: int, *, more: bool, not_held: int) -> str:
    """Return a sentence on how many calls a page shows, and how many of their recordings are not held."""
    if not calls:
        return "No call matches."
    text = f"{number(calls, 'call')} on this page" if more else number(calls, "call")
    return f"{text}, {number(not_held, 'recording')} not held" if not_held else text

"""The search form: its fields are read into a query that is limited to what the person may find."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from pipelines.browser.people import Person, Role
from pipelines.browser.presentation import STATES
from pipelines.browser.tokens import parse_date
from pipelines.calendar import FIRST_DAY
from pipelines.steps.calls.search import CallSearch, Query
from pipelines.steps.calls.table import CALLS_SCHEMA, Row

FIELDS: Final = (
    "from", "to", "number", "agent", "queue", "account", "direction", "shortest", "longest", "disposition", "notes",
    "uii", "state",
)  # fmt: skip
PAGE: Final = 100
LISTED: Final = (
    "date", "started_at", "started_local", "account_id", "uii", "direction", "ani", "dnis", "agent_id", "agent_name",
    "queue_id", "queue_name", "disposition", "notes", "call_s", "segment_s", "layout", "recording_id", "state",
    "reason", "key",
)  # fmt: skip
"""The columns that the list of calls shows; in its rows the others are None."""

_TEXTS: Final = ("number", "agent", "queue", "account", "direction", "disposition", "notes", "uii", "state")
_LONGEST_FIELD: Final = 200
_DAYS: Final = 6
_LENGTH: Final = re.compile(r"(?:(\d{1,3}):)?(\d{1,5}):(\d{2})|(\d{1,6})", re.ASCII)


class WrongSearch(Exception):  # noqa: N818 - its name says what happened
    """The search is not possible, or not for this person. The text gives the reason and never the search terms."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPage:
    """A page of rows. `more`: whether more rows follow."""

    rows: tuple[Row, ...]
    more: bool
    not_searched: tuple[date, ...]


def default_fields(today: date) -> dict[str, str]:
    """Return the fields of an empty form, which search the last week."""
    return dict.fromkeys(FIELDS, "") | {"from": str(today - timedelta(days=_DAYS)), "to": str(today)}


def prefill(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the fields that a link to the form may fill in, none of which is personal data."""
    days = {name: parameters[name] for name in ("from", "to") if parse_date(parameters.get(name, ""))}
    return days | ({"state": parameters["state"]} if parameters.get("state") in STATES else {})


def query_of(fields: Mapping[str, str] | None, person: Person, today: date) -> Query:
    """Return a query for the form's fields, limited to what the person may see; raise WrongSearch if the fields are
    not known (None), a field cannot be read, or the person may not search by it.
    """
    if fields is None:
        raise WrongSearch("That search has expired: search again.", 404)
    if not person.may_search:
        raise WrongSearch("You have no right to search.", 403)
    text = {name: fields.get(name, "").strip() for name in FIELDS}
    if any(len(value) > _LONGEST_FIELD for value in text.values()):
        raise WrongSearch("A field is longer than 200 characters: shorten it.")
    first, last = parse_date(text["from"]), parse_date(text["to"])
    if first is None or last is None:
        raise WrongSearch("Give both dates, written like 2026-11-18.")
    if first > last:
        raise WrongSearch("The first date is after the last: give the earlier one first.")
    if first < FIRST_DAY or last > today + timedelta(days=1):
        raise WrongSearch(f"Give dates from {FIRST_DAY} to today.")
    if text["direction"] not in {"", "inbound", "outbound"} or text["state"] not in {"", *STATES}:
        raise WrongSearch("Choose direction and state from their lists.")
    if not person.has(Role.numbers):
        # Otherwise searches would reveal the number digit by digit.
        if text["number"]:
            raise WrongSearch("You may not search by number.")
        if any(character.isdigit() for character in text["notes"] + text["disposition"]):
            raise WrongSearch("You may not search notes or dispositions for digits.")
    return Query(
        first=first,
        last=last,
        **dict[str, Any]((name, text[name]) for name in _TEXTS),
        shortest_s=_length(text["shortest"]),
        longest_s=_length(text["longest"]),
        within=person.within,
        digits_in_names=person.has(Role.numbers),
    )


def find(
    search: CallSearch,
    query: Query,
    page: int,
    size: int = PAGE,
    *,
    columns: Sequence[str] = CALLS_SCHEMA.names,
    stop: Callable[[], bool],
) -> SearchPage:
    """Return a page of at most `size` rows that match, with these columns; raise the errors of `CallSearch.find`."""
    files = search.files(query)
    table = search.find(query, files, limit=size + 1, offset=page * size, columns=columns, stop=stop)
    nothing = dict.fromkeys(CALLS_SCHEMA.names)
    return SearchPage(
        rows=tuple(nothing | row for row in table.slice(0, size).to_pylist()),
        more=table.num_rows > size,
        not_searched=tuple(search.not_searched(query, files)),
    )


def _length(text: str) -> float | None:
    if not text:
        return None
    match = _LENGTH.fullmatch(text)
    if match is None:
        raise WrongSearch("Give a length in seconds, or as 4:31.")
    hours, minutes, seconds, plain = (int(part or 0) for part in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds + plain)

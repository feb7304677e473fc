"""The options with which `find` and `export` select calls."""

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

import click

from pipelines.calendar import local_day
from pipelines.cli.options import check_range, date_range
from pipelines.settings import StorageSettings
from pipelines.steps.calls.search import Query
from pipelines.steps.calls.table import STATES

_F = TypeVar("_F", bound=Callable[..., Any])
_FILTERS = (
    date_range(required=False),
    click.option("--number", default="", help="A number of either side, in any format, or a part of one."),
    click.option("--agent", default="", help="An agent's whole id or login, or a part of the name."),
    click.option("--queue", default="", help="The whole id of a queue or campaign, or a part of its name."),
    click.option("--account", default="", help="A sub-account's id."),
    click.option("--direction", type=click.Choice(["inbound", "outbound"]), help="The call's direction."),
    click.option("--shortest", "shortest_s", type=click.FloatRange(min=0), help="At least this many seconds long."),
    click.option("--longest", "longest_s", type=click.FloatRange(min=0), help="At most this many seconds long."),
    click.option("--disposition", default="", help="A part of the disposition."),
    click.option("--notes", default="", help="A part of the notes."),
    click.option("--uii", default="", help="The call's UII."),
    click.option(
        "--recording", "recordings", metavar="ID", multiple=True, help="A recording's id; may be given several times."
    ),
    click.option("--state", type=click.Choice(STATES), help="The recording's state; `none`: a call without one."),
)


def filters(command: _F) -> _F:
    """Add the options that select calls; `query_of` takes their values."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def query_of(settings: StorageSettings, now: datetime, *, first: date | None, last: date | None, **asked: Any) -> Query:  # noqa: ANN401 - fields of a query
    """Return a query for the options of `filters`, and without dates for all up to yesterday."""
    today = local_day(now, settings.zone)
    yesterday = today - timedelta(days=1)
    last = last or max(yesterday, first or yesterday)
    first = first or min(settings.archive_start_date, last)
    check_range(first, last, today)
    return Query(first=first, last=last, **{name: value for name, value in asked.items() if value is not None})


def search_terms(asked: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of the options of `filters` for the access log."""
    given = {name: value for name, value in asked.items() if value not in {"", None, ()}}
    return {name: ", ".join(value) if isinstance(value, tuple) else str(value) for name, value in given.items()}

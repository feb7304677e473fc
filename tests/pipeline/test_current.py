"""The current API end to end: windows of interaction metadata, recordings by dialog and segment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from pipelines.ledger.states import Status
from sandbox.config import Limits

OLD = date(2026, 3, 2)
FREE = Limits(reports="none", exchange="none", metadata="none", download="none")
CURRENT = {
    "RINGCX_SOURCE": "current",
    "RINGCX_LIMIT_METADATA": "none",
    "RINGCX_LIMIT_MEDIA": "none",
}


@pytest.fixture
def current(world: Callable[..., Any]) -> Callable[..., Any]:
    """A world whose source is the current API."""

    def make(**arguments: Any) -> Any:
        sandbox = {"limits": FREE, **arguments.pop("sandbox", {})}
        return world(sandbox=sandbox, **{**CURRENT, **arguments})

    return make


def segments_of(it: Any, *days: date, timezone: str = "UTC") -> list[dict[str, Any]]:
    """The recordings that the current API has of these dates, by the sandbox's own word."""
    return [one for one in it.truth(*days, timezone=timezone) if one["segment"]]


def rows_of(it: Any, day: date, *columns: str) -> list[dict[str, Any]]:
    names = ["account_id", "row_key", *columns]
    return it.services().ledger.latest_rows("interaction_metadata", day, columns=names).to_pylist()


def test_a_date_of_the_current_api_is_archived_byte_for_byte_under_its_segments_names(
    current: Callable[..., Any], recent: list[date]
) -> None:
    it = current()
    for day in (recent[0], recent[1]):
        result = it.run(day)
        assert result.success, it.failures(result)
    truth = segments_of(it, recent[0])
    assert truth
    states, objects = it.states(recent[0]), it.objects(f"recordings/date={recent[0]}/")
    for one in truth:
        dialog, segment = one["segment"]["dialog_id"], one["segment"]["segment_id"]
        key = f"recordings/date={recent[0]}/account_id=15300002/layout=stereo/{dialog}_{segment}.wav"
        assert objects[key] == one["sha256"]
        state = states[f"15300002/{dialog}/{segment}"]
        assert (state.status, state.key, state.uii, state.source) == (
            Status.archived,
            key,
            one["uii"],
            "interaction_metadata",
        )
    assert len(objects) == len(truth) == len(states)

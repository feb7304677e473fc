"""A recording as the ledger first knows it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from typing import Any

from pipelines.ledger.states import RecordingState, Status


def pending(recording_id: str, day: date, now: datetime, **changed: Any) -> RecordingState:
    """Return a mono recording of account 1, found on its own date and due at `now`."""
    state = RecordingState(
        recording_id=recording_id,
        account_id="1",
        uii="u",
        layout="mono",
        source="global_call_type_detail",
        date=day,
        status=Status.pending,
        next_attempt_at=now,
        run_id="r",
        written_at=now,
        link=f"https://x.vacd.biz/a?file=/{recording_id.partition('/')[2]}",
        found_on=day,
        first_seen_at=now,
    )
    return replace(state, **changed)

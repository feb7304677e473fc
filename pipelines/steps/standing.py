"""How the recordings of a date stand after a run."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from pipelines.ledger.states import FINAL
from pipelines.ledger.store import Ledger
from pipelines.steps.known import Recordings, recordings_of
from pipelines.steps.links import rejoin


def standing_after(ledger: Ledger, day: date, linked: Iterable[date], *, now: datetime, run_id: str) -> Recordings:
    """Read how the recordings stand after a run, and match both sources once more: a recording that became final under
    one id is due under its other one; one that is held is not fetched again under the other.
    """
    known = recordings_of(ledger, day, linked)
    if known.by_status().keys() & FINAL and rejoin(ledger, known, day, now=now, run_id=run_id):
        known = recordings_of(ledger, day, linked)
    return known

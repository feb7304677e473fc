"""What the ledger says of single dates: pulled or not, complete or not, and how much of them is held."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime

import pandas as pd

from pipelines.calendar import day_bounds
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.columns import FULL_SOURCES, REPORTS
from pipelines.settings import PlanSettings
from pipelines.steps.coverage import gaps
from pipelines.steps.rows import INTERACTIONS

WHOLE = ("complete", "pending")
"""The states of a date of which every report was pulled for the whole day."""
TO_RUN = ("pending", "partly pulled", "never pulled")

_READERS = 8
_COUNTS = ["found", "held", "held_bytes", "pending_media", "pending_download"]


class KnownDays:
    """Reads dates; one listing tells of which of them there is anything to read.

    Raises (from every method): LedgerUnavailable, LedgerDamaged.
    """

    def __init__(self, ledger: Ledger, settings: PlanSettings, now: datetime) -> None:
        self._ledger = ledger
        self._settings = settings
        self._now = now
        self._pulled = {name: frozenset(ledger.pull_days(name)) for name in REPORTS}
        self._stated = frozenset(ledger.state_days())

    def perhaps_whole(self) -> list[date]:
        """The dates for which a full source was asked, newest first; whether to their end only `read` tells."""
        asked = (frozenset.intersection(*(self._pulled[name] for name in full)) for full in FULL_SOURCES)
        return sorted(frozenset().union(*asked), reverse=True)

    def read(self, days: Collection[date]) -> pd.DataFrame:
        """Return a row per date and account of the settings: `date`, `account_id`, `state` of the date, and counts of
        recordings: `found`, `held` and `held_bytes`, `pending_media` (links), `pending_download` (the current API).
        """
        with ThreadPoolExecutor(_READERS, thread_name_prefix="plan") as pool:
            lines = [line for of_day in pool.map(self._read, days) for line in of_day]
        return pd.DataFrame(lines, columns=["date", "account_id", "state", *_COUNTS])

    def _read(self, day: date) -> list[tuple[date | str | int, ...]]:
        counts = {account: dict.fromkeys(_COUNTS, 0) for account in self._settings.ringcx_account_ids}
        for one in self._ledger.tally(day) if day in self._stated else ():
            if (of_account := counts.get(one.account_id)) is not None:
                of_account["found"] += one.recordings
                if one.status is Status.archived:
                    of_account["held"] += one.recordings
                    of_account["held_bytes"] += one.size
                elif one.status is Status.pending:
                    of_account["pending_download" if one.source == INTERACTIONS else "pending_media"] += one.recordings
        waiting = any(one["pending_media"] or one["pending_download"] for one in counts.values())
        state = self._state(day, "pending" if waiting else "complete")
        return [(day, account, state, *of_account.values()) for account, of_account in counts.items()]

    def _state(self, day: date, if_whole: str) -> str:
        bounds = day_bounds(day, self._settings.zone)
        if self._now < bounds[1]:
            return "not over"
        pulls = {name: self._ledger.pulls(name, day) for name, days in self._pulled.items() if day in days}
        if not pulls:
            return "never pulled"
        accounts = self._settings.ringcx_account_ids
        return "partly pulled" if gaps(pulls, accounts, bounds, self._settings.reports) else if_whole

"""The plan of a range: each date, the requests of each kind with their hours, and what comes of it in S3."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from pipelines.calendar import day_bounds, local_day
from pipelines.ledger.store import Ledger
from pipelines.ringcx.columns import LEGACY
from pipelines.ringcx.limits import Rate
from pipelines.steps.planning.days import Kind, KnownDay, KnownDays, Source
from pipelines.steps.planning.pace import log_ins, seconds_needed
from pipelines.steps.planning.storing import Prices, S3Requests, requests_of_a_date
from pipelines.steps.planning.usual import History, read_history
from pipelines.steps.pull import PARTS

_ONE_DAY = timedelta(days=1)
_READERS = 8
_PER_ACCOUNT = ("reports", "metadata", "media", "download")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a plan is made under: the source's limits and retention, and prices."""

    limits: Mapping[str, Sequence[Rate]]
    retention_days: int
    margin_days: int
    prices: Prices


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedDay:
    """One date. `days_left`: until the source purges it, below zero when it has; `requests`: by limit, all accounts.

    `to_fetch` and `to_store` (bytes) are None where neither ledger nor history knows; `estimated` tells which.
    """

    day: date
    kind: Kind
    days_left: int
    requests: Mapping[str, int]
    found: int
    held: int
    held_bytes: int
    pending: int
    to_fetch: int | None
    to_store: float | None
    estimated: bool

    @property
    def to_run(self) -> bool:
        """Whether the backfill should run it."""
        return self.kind not in {"complete", "not over"}

    def as_json(self) -> dict[str, object]:
        """In the form of the file that `--json` writes."""
        return {
            "date": self.day.isoformat(),
            "state": self.kind,
            "to_run": self.to_run,
            "days_left": self.days_left,
            "requests": dict(self.requests),
            "recordings_known": self.found,
            "recordings_held": self.held,
            "bytes_held": self.held_bytes,
            "pending": self.pending,
            "recordings_to_fetch": self.to_fetch,
            "bytes_to_store": None if self.to_store is None else round(self.to_store),
            "estimated": self.estimated,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One limit: all requests, those of the account that has most, and the seconds that these take by themselves."""

    name: str
    rates: Sequence[Rate]
    requests: int
    busiest: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole. `unknown`: dates to run for which nobody knows how many recordings they have."""

    first: date
    last: date
    days: Sequence[PlannedDay]
    budgets: Sequence[Budget]
    history: History
    s3: S3Requests
    terms: Terms

    @property
    def to_run(self) -> list[PlannedDay]:
        """The dates to run, in the order of the calendar."""
        return [day for day in self.days if day.to_run]

    @property
    def unknown(self) -> list[PlannedDay]:
        """Of these, the ones whose recordings nobody knows."""
        return [day for day in self.to_run if day.to_fetch is None]

    @property
    def longest(self) -> Budget:
        """The limit that takes longest."""
        return max(self.budgets, key=lambda one: one.seconds)

    @property
    def to_fetch(self) -> int:
        """Recordings to come, as far as they are known or estimated."""
        return sum(day.to_fetch or 0 for day in self.to_run)

    @property
    def to_store(self) -> float:
        """Their bytes, likewise."""
        return sum(day.to_store or 0.0 for day in self.to_run)


def make_plan(ledger: Ledger, source: Source, terms: Terms, span: tuple[date, date], now: datetime) -> Plan:
    """Plan the dates of `span`, both of its ends included. Reads the ledger, and changes nothing.

    Raises:
        LedgerUnavailable, LedgerDamaged: the ledger cannot be read.
    """
    known_days = KnownDays(ledger, source, now)
    history = read_history(known_days)
    first, last = span
    dates = [first + _ONE_DAY * offset for offset in range((last - first).days + 1)]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="plan") as pool:
        known = list(pool.map(known_days.read, dates))
    today = local_day(now, source.zone)
    asked: dict[str, Counter[str]] = {name: Counter() for name in _PER_ACCOUNT}
    days = [_planned(one, source, terms, history, today=today, asked=asked) for one in known]
    to_run = [day for day in days if day.to_run]
    budgets = [_budget(name, terms.limits[name], asked[name]) for name in _PER_ACCOUNT]
    longest = max(one.seconds for one in budgets)
    tokens = Counter({"": log_ins(len(to_run), longest)})
    return Plan(
        first=first,
        last=last,
        days=days,
        budgets=[*budgets, _budget("auth", terms.limits["auth"], tokens)],
        history=history,
        s3=S3Requests.total(requests_of_a_date(day.to_fetch or 0, _pulls(source, day.day)) for day in to_run),
        terms=terms,
    )


def windows_of(day: date, source: Source) -> int:
    """How many windows of interaction metadata make a date: its length (23, 24 or 25 hours) by the window's."""
    start, end = day_bounds(day, source.zone)
    return math.ceil((end - start).total_seconds() / source.metadata_window_s)


def _planned(
    known: KnownDay,
    source: Source,
    terms: Terms,
    history: History,
    *,
    today: date,
    asked: Mapping[str, Counter[str]],
) -> PlannedDay:
    """The date's part of the plan; its requests of each account are added to `asked`."""
    pulled = known.kind in {"complete", "pending"}
    usual = None if pulled else history.of(known.day)
    requests: dict[str, Counter[str]] = {name: Counter() for name in _PER_ACCOUNT}
    if known.kind not in {"complete", "not over"}:
        for account in source.accounts:
            if source.uses_reports:
                requests["reports"][account] += sum(len(PARTS[report]) for report in LEGACY)
            if source.uses_interactions:
                requests["metadata"][account] += windows_of(known.day, source)
            requests["media"][account] += known.pending_media.get(account, 0)
            requests["download"][account] += known.pending_download.get(account, 0)
            if usual is not None:
                # With both sources a recording may come either way: the stricter limit is the one planned with.
                limit = "download" if source.uses_interactions else "media"
                requests[limit][account] += max(
                    0, round(usual.recordings.get(account, 0)) - known.found.get(account, 0)
                )
    for name, of_accounts in requests.items():
        asked[name].update(of_accounts)
    found = sum(known.found.values())
    to_fetch = sum(requests["media"].values()) + sum(requests["download"].values())
    return PlannedDay(
        day=known.day,
        kind=known.kind,
        days_left=terms.retention_days - (today - known.day).days,
        requests={name: of_accounts.total() for name, of_accounts in requests.items() if of_accounts.total()},
        found=found,
        held=known.held,
        held_bytes=known.held_bytes,
        pending=known.pending,
        to_fetch=to_fetch if pulled or usual is not None else None,
        to_store=_bytes_to_store(known, to_fetch, history),
        estimated=usual is not None,
    )


def _bytes_to_store(known: KnownDay, to_fetch: int, history: History) -> float | None:
    """A date without a recording takes the usual date's bytes; single ones are as large as the usual recording."""
    usual = history.of(known.day)
    if known.kind in {"complete", "not over"} or (known.kind == "pending" and not to_fetch):
        return 0.0
    if known.kind != "pending" and usual is None:
        return None
    if usual is not None and known.kind != "pending" and not known.found:
        return usual.size
    return None if history.recording_bytes is None else to_fetch * history.recording_bytes


def _budget(name: str, rates: Sequence[Rate], asked: Counter[str]) -> Budget:
    # Limits count for each account, and accounts do not wait for each other: the one with most takes longest.
    busiest = max(asked.values(), default=0)
    return Budget(
        name=name, rates=rates, requests=asked.total(), busiest=busiest, seconds=seconds_needed(busiest, rates)
    )


def _pulls(source: Source, day: date) -> int:
    each = (len(LEGACY) if source.uses_reports else 0) + (windows_of(day, source) if source.uses_interactions else 0)
    return each * len(source.accounts)

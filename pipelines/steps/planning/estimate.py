"""The plan of a range: what each date asks for and brings, how long the limits make it take, what is urgent.

No number is invented: recordings that neither the ledger nor its history knows of are null, and said to be unknown.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import pandas as pd

from pipelines.calendar import day_bounds, local_day
from pipelines.ledger.store import Ledger
from pipelines.ringcx.columns import LEGACY
from pipelines.ringcx.limits import MARGIN_S, Rate
from pipelines.settings import PlanSettings
from pipelines.steps.planning.days import TO_RUN, WHOLE, KnownDays
from pipelines.steps.pull import PARTS

# A quarter of a year of each weekday would follow the season; two months follow the account as it is now.
DATES_OF_A_WEEKDAY = 8
# A few more are read, for some of the newest may be pulled in part only.
_LOOKED_AT = DATES_OF_A_WEEKDAY + 4
_URGENCY = ["urgent", "in time", "probably lost"]
_SUMS = ["found", "held", "held_bytes", "pending_media", "pending_download"]
_BY_ACCOUNT = ["reports", "metadata", "media", "download"]
# A RingCX token lives 5 minutes and is renewed a minute before its end (ringcx/auth.py).
_TOKEN_S = 240.0
# The limit on `dagster/backfill` of dagster.yaml: each run is a process, and logs in for itself.
_RUNS_AT_ONCE = 2
_EXACT = 20_000


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole, in tables.

    `dates`: a row per date, in the order of the calendar: `state`, `to_run`, `urgency`, `days_left` (until the source
    purges it), `requests`, one column of them for each limit, `found`, `held`, `held_bytes`, `pending`, `to_fetch` and
    `to_store` (bytes; both null where unknown), `estimated`.
    `limits`: a row per limit, by its name: `rates`, `requests`, `of_one_account`, `seconds`.
    `basis`: the dates that estimates come from.
    """

    dates: pd.DataFrame
    limits: pd.DataFrame
    basis: Sequence[date]
    settings: PlanSettings

    @property
    def to_run(self) -> pd.DataFrame:
        """The dates to run."""
        return self.dates[self.dates["to_run"]]

    @property
    def unknown(self) -> int:
        """How many of these have recordings that nobody knows of."""
        return int(self.to_run["to_fetch"].isna().sum())

    @property
    def to_fetch(self) -> int:
        """Recordings to come, as far as they are known or estimated."""
        return int(self.to_run["to_fetch"].sum())

    @property
    def to_store(self) -> float:
        """Their bytes, likewise."""
        return float(self.to_run["to_store"].sum())

    @property
    def longest(self) -> str:
        """The limit that takes longest."""
        return str(self.limits["seconds"].idxmax())

    @property
    def seconds(self) -> float:
        """What it takes. The limits run next to each other."""
        return float(self.limits["seconds"].max())


def make_plan(ledger: Ledger, settings: PlanSettings, first: date, last: date, now: datetime) -> Plan:
    """Plan the dates from `first` to `last`, both included. Reads the ledger, and changes nothing.

    Raises:
        LedgerUnavailable, LedgerDamaged: the ledger cannot be read.
    """
    known_days = KnownDays(ledger, settings, now)
    days = [one.date() for one in pd.date_range(first, last)]
    history = _history(known_days)
    known = known_days.read(days)
    known["weekday"] = [day.weekday() for day in known["date"]]
    known["to_run"] = known["state"].isin(TO_RUN)
    usual = history.groupby(["weekday", "account_id"])["found"].median().round().rename("usual")
    known = known.join(usual, on=["weekday", "account_id"])
    asked = _requests(known, settings)
    dates = known.groupby("date").agg({"state": "first", "to_run": "first"} | dict.fromkeys(_SUMS, "sum"))
    dates["pending"] = dates.pop("pending_media") + dates.pop("pending_download")
    dates[_BY_ACCOUNT] = asked.groupby(known["date"]).sum()
    dates["requests"] = dates[_BY_ACCOUNT].sum(axis="columns")
    guessed = dates["to_run"] & ~dates["state"].isin(WHOLE)
    dates["estimated"] = guessed & known.groupby("date")["usual"].count().gt(0)
    dates["to_fetch"] = (dates["media"] + dates["download"]).astype("Int64").mask(guessed & ~dates["estimated"])
    of_a_recording = history["held_bytes"].sum() / history["held"].sum() if history["held"].any() else math.nan
    none = dates["to_fetch"].eq(0).fillna(False)
    dates["to_store"] = (dates["to_fetch"].astype("Float64") * of_a_recording).mask(none, 0)
    today = local_day(now, settings.zone)
    dates["days_left"] = [settings.ringcx_retention_days - (today - day).days for day in dates.index]
    steps = [-math.inf, 0, settings.ringcx_retention_margin_days, math.inf]
    dates["urgency"] = pd.cut(dates["days_left"], steps, right=False, labels=["probably lost", "urgent", "in time"])
    dates["urgency"] = dates["urgency"].astype(pd.CategoricalDtype(_URGENCY, ordered=True))
    limits = _limits(asked.groupby(known["account_id"]).sum(), int(dates["to_run"].sum()), settings)
    return Plan(dates.reset_index(), limits, sorted(set(history["date"])), settings)


def date_ranges(dates: pd.DataFrame, *alike: str) -> pd.DataFrame:
    """Return a row for dates that follow each other and are alike in those columns: `from`, `to`, `count`, `state`,
    `urgency`, `days_left` (of the first), `requests`, and what they hold and bring; what to run first comes first.
    """
    gap = pd.to_datetime(dates["date"]).diff().ne(pd.Timedelta(days=1))
    other = dates[[*alike]].ne(dates[[*alike]].shift()).any(axis="columns")
    ranges = (
        dates.assign(unknown=dates["to_fetch"].isna())
        .groupby((gap | other).cumsum())
        .agg(
            **{"from": ("date", "first"), "to": ("date", "last"), "count": ("date", "size")},
            **{name: (name, "first") for name in ("state", "to_run", "urgency", "days_left")},
            **{name: (name, "sum") for name in ("requests", "found", "held_bytes", "to_fetch", "to_store", "unknown")},
            estimated=("estimated", "any"),
        )
    )
    return ranges.sort_values(["to_run", "urgency", "from"], ascending=[False, True, True])


def backfills(plan: Plan) -> pd.DataFrame:
    """Return what to launch, in its order: what the source purges soon, the rest, what is probably lost."""
    return date_ranges(plan.to_run, "urgency")


def windows_of(day: date, settings: PlanSettings) -> int:
    """How many windows of interaction metadata make a date: its length (23, 24 or 25 hours) by the window's."""
    start, end = day_bounds(day, settings.zone)
    return math.ceil((end - start).total_seconds() / settings.ringcx_metadata_window)


def seconds_needed(requests: int, rates: Sequence[Rate], *, margin_s: float = MARGIN_S) -> float:
    """Seconds from the first to the last permit of so many requests, by a limiter that was idle before.

    All windows hold at once. The first 20,000 requests are followed one by one; after that the slowest window sets the
    pace.
    """
    if requests <= 1 or not rates:
        return 0.0
    times: deque[float] = deque(maxlen=max(rate.limit for rate in rates))
    now = 0.0
    for _ in range(min(requests, _EXACT)):
        now = max([now, *(times[-rate.limit] + rate.seconds + margin_s for rate in rates if len(times) >= rate.limit)])
        times.append(now)
    return now + max(0, requests - _EXACT) * max((rate.seconds + margin_s) / rate.limit for rate in rates)


def _history(days: KnownDays) -> pd.DataFrame:
    """The newest dates of each weekday that were pulled whole, as `KnownDays.read` has them."""
    newest = pd.Series(days.perhaps_whole(), dtype="object")
    looked_at = newest.groupby([day.weekday() for day in newest]).head(_LOOKED_AT)
    history = days.read(list(looked_at))
    history["weekday"] = [day.weekday() for day in history["date"]]
    history = history[history["state"].isin(WHOLE)]
    return history.groupby(["weekday", "account_id"]).head(DATES_OF_A_WEEKDAY)


def _requests(known: pd.DataFrame, settings: PlanSettings) -> pd.DataFrame:
    """Return the requests of each date and account that is to run, a column for each limit."""
    asked = pd.DataFrame(index=known.index)
    asked["reports"] = sum(len(PARTS[report]) for report in LEGACY) if settings.uses_reports else 0
    asked["metadata"] = [windows_of(day, settings) if settings.uses_interactions else 0 for day in known["date"]]
    asked["media"], asked["download"] = known["pending_media"], known["pending_download"]
    # With both sources a recording may come either way: the stricter limit is the one planned with.
    to_come = (known["usual"] - known["found"]).clip(lower=0).where(~known["state"].isin(WHOLE)).fillna(0)
    asked["download" if settings.uses_interactions else "media"] += to_come.astype(int)
    return asked.where(known["to_run"], 0)


def _limits(asked: pd.DataFrame, dates: int, settings: PlanSettings) -> pd.DataFrame:
    """Return a row per limit. Limits count for each account, and accounts do not wait for each other: the one with
    most requests takes longest. Log-ins: one a run, one for each token's life in each of the runs at once.
    """
    requests = {name: (int(asked[name].sum()), int(asked[name].max())) for name in _BY_ACCOUNT}
    longest = max(seconds_needed(most, settings.limits[name]) for name, (_, most) in requests.items())
    log_ins = dates + min(dates, _RUNS_AT_ONCE) * math.floor(longest / _TOKEN_S)
    rows = [
        (name, settings.limits[name], of_all, most, seconds_needed(most, settings.limits[name]))
        for name, (of_all, most) in {**requests, "auth": (log_ins, log_ins)}.items()
    ]
    return pd.DataFrame(rows, columns=["name", "rates", "requests", "of_one_account", "seconds"]).set_index("name")

"""The plan of a range: what each date requests and yields, how long it takes within the limits, and what is urgent.

Values that neither the ledger nor its history shows are null, and are shown as unknown.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pandas as pd

from pipelines.calendar import dates_between, day_bounds, local_day
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.limits.limiter import MARGIN_S, Rate
from pipelines.ringcx.reports.columns import LEGACY, REPORTS
from pipelines.settings import PlanSettings
from pipelines.steps.link.rows import INTERACTIONS
from pipelines.steps.parallel import map_in_order
from pipelines.steps.pull.coverage import unpulled
from pipelines.steps.pull.reports import PARTS

# A quarter of a year of each weekday would follow the season; two months follow the account as it is now.
DATES_OF_A_WEEKDAY = 8
# A few more are read, since some of the newest may be pulled only in part.
_READ_OF_A_WEEKDAY = DATES_OF_A_WEEKDAY + 4
_PULLED = ("complete", "pending")
_TO_RUN = ("pending", "partly pulled", "never pulled")
_URGENCY = pd.CategoricalDtype(["urgent", "in time", "probably lost"], ordered=True)
_COUNTS = ["recordings_known", "recordings_held", "bytes_held", "pending_media", "pending_download"]
_BY_ACCOUNT = ["reports", "metadata", "media", "download"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan. `dates`: a row per date with its `state`, `urgency` and counts. `limits`: a row per limit, by name.
    `basis`: the dates that the estimates come from.
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
    def totals(self) -> dict[str, Any]:
        """The totals of the dates to run, as far as they are known or estimated. The limits apply in parallel."""
        to_run = self.to_run
        return {
            "dates": len(self.dates),
            "dates_to_run": len(to_run),
            "dates_unknown": int(to_run["recordings_to_fetch"].isna().sum()),
            "recordings_to_fetch": int(to_run["recordings_to_fetch"].sum()),
            "bytes_to_store": round(to_run["bytes_to_store"].sum()),
            "longest": str(self.limits["seconds"].idxmax()),
            "seconds": float(self.limits["seconds"].max()),
        }


def make_plan(ledger: Ledger, settings: PlanSettings, first: date, last: date, now: datetime) -> Plan:
    """Plan the dates from `first` to `last`, both included. Read the ledger, and change nothing."""
    read = _read(ledger, settings, dates_between(first, last), now)
    newest_first = read[read["state"].isin(_PULLED)].sort_values("date", ascending=False)
    history = newest_first.groupby(["weekday", "account_id"]).head(DATES_OF_A_WEEKDAY)
    usual = history.groupby(["weekday", "account_id"])["recordings_known"].median().round().rename("usual")
    known = read[read["date"].between(first, last)].join(usual, on=["weekday", "account_id"])
    asked = _requests(known, settings)
    dates = known.groupby("date").agg({"state": "first", "usual": "count"} | dict.fromkeys(_COUNTS, "sum"))
    dates["pending"] = dates.pop("pending_media") + dates.pop("pending_download")
    dates["to_run"] = dates["state"].isin(_TO_RUN)
    dates[_BY_ACCOUNT] = asked.groupby(known["date"]).sum()
    guessed = dates["to_run"] & ~dates["state"].isin(_PULLED)
    dates["estimated"] = guessed & dates.pop("usual").gt(0)
    to_fetch = (dates["media"] + dates["download"]).astype("Int64").mask(guessed & ~dates["estimated"])
    held = history["recordings_held"].sum()
    size = history["bytes_held"].sum() / held if held else math.nan
    dates["recordings_to_fetch"] = to_fetch
    dates["bytes_to_store"] = (to_fetch.astype("Float64") * size).mask(to_fetch.eq(0).fillna(False), 0)
    today = local_day(now, settings.zone)
    dates["days_left"] = [settings.ringcx_retention_days - (today - day).days for day in dates.index]
    steps = [-math.inf, 0, settings.ringcx_retention_margin_days, math.inf]
    urgency = pd.cut(dates["days_left"], steps, right=False, labels=["probably lost", "urgent", "in time"])
    dates["urgency"] = urgency.astype(_URGENCY)
    limits = _limits(asked.groupby(known["account_id"]).sum(), settings)
    return Plan(dates.reset_index(), limits, sorted(set(history["date"])), settings)


def date_ranges(dates: pd.DataFrame, *alike: str) -> pd.DataFrame:
    """Return a row per range of consecutive dates that are alike in those columns, in the order to run them."""
    gap = pd.to_datetime(dates["date"]).diff().ne(pd.Timedelta(days=1))
    other = dates[[*alike]].ne(dates[[*alike]].shift()).any(axis="columns")
    summed = ["recordings_known", "bytes_held", "recordings_to_fetch", "bytes_to_store", "unknown", "requests"]
    ranges = (
        dates.assign(unknown=dates["recordings_to_fetch"].isna(), requests=dates[_BY_ACCOUNT].sum(axis="columns"))
        .groupby((gap | other).cumsum())
        .agg(
            **{"from": ("date", "first"), "to": ("date", "last"), "count": ("date", "size")},
            **{name: (name, "first") for name in ("state", "to_run", "urgency", "days_left")},
            **{name: (name, "sum") for name in summed},
            estimated=("estimated", "any"),
        )
    )
    return ranges.sort_values(["to_run", "urgency", "from"], ascending=[False, True, True])


def seconds_needed(requests: int, rates: Sequence[Rate]) -> float:
    """Return the least time in seconds from the first to the last permit for that many requests to an idle limiter."""
    seconds = ((requests - 1) // rate.limit * (rate.seconds + MARGIN_S) for rate in rates if requests)
    return max(seconds, default=0.0)


def _read(ledger: Ledger, settings: PlanSettings, days: Collection[date], now: datetime) -> pd.DataFrame:
    """Return a row per date and account, for `days` and the newest pulled dates of each weekday: the `state` of the
    date, and counts of recordings (`pending_media`: links, `pending_download`: the current API's).
    """
    pulled = {name: frozenset(ledger.pull_days(name)) for name in REPORTS}
    newest = pd.Series(sorted(frozenset().union(*pulled.values()), reverse=True), dtype="object")
    recent = newest.groupby([day.weekday() for day in newest]).head(_READ_OF_A_WEEKDAY)
    stated = frozenset(ledger.recording_days())

    def state(day: date, *, pending: bool) -> str:
        if now < day_bounds(day, settings.zone)[1]:
            return "not over"
        pulls = {name: ledger.pulls(name, day) for name in REPORTS if day in pulled[name]}
        if not pulls:
            return "never pulled"
        if unpulled(pulls, day, settings):
            return "partly pulled"
        return "pending" if pending else "complete"

    def rows(day: date) -> list[dict[str, Any]]:
        counts = {account: dict.fromkeys(_COUNTS, 0) for account in settings.ringcx_account_ids}
        tally = ledger.tally(day) if day in stated else ()
        for account_id, source, status, recordings, size in (line for line in tally if line[0] in counts):
            of_account = counts[account_id]
            of_account["recordings_known"] += recordings
            if status is Status.archived:
                of_account["recordings_held"] += recordings
                of_account["bytes_held"] += size
            elif status is Status.pending:
                of_account["pending_download" if source == INTERACTIONS else "pending_media"] += recordings
        pending = any(row["pending_media"] or row["pending_download"] for row in counts.values())
        of_day = {"date": day, "weekday": day.weekday(), "state": state(day, pending=pending)}
        return [{**of_day, "account_id": account, **of_account} for account, of_account in counts.items()]

    read = map_in_order(rows, {*days, *recent})
    return pd.DataFrame([row for _, of_day in read for row in of_day]).sort_values("date")


def _requests(known: pd.DataFrame, settings: PlanSettings) -> pd.DataFrame:
    """Return the requests of each date and account to run, in a column for each limit."""
    asked = pd.DataFrame(index=known.index)
    asked["reports"] = sum(len(PARTS[report]) for report in LEGACY) if settings.uses_reports else 0
    asked["metadata"] = 0
    if settings.uses_interactions:  # a window may be shorter than the rest of a day of 23, 24 or 25 hours
        lengths = [end - start for start, end in (day_bounds(day, settings.zone) for day in known["date"])]
        asked["metadata"] = [math.ceil(length.total_seconds() / settings.ringcx_metadata_window) for length in lengths]
    asked["media"], asked["download"] = known["pending_media"], known["pending_download"]
    # With both sources a recording may come either way: the stricter limit is the one planned with.
    to_come = (known["usual"] - known["recordings_known"]).clip(lower=0).mask(known["state"].isin(_PULLED))
    asked["download" if settings.uses_interactions else "media"] += to_come.fillna(0).astype(int)
    return asked.where(known["state"].isin(_TO_RUN), 0)


def _limits(asked: pd.DataFrame, settings: PlanSettings) -> pd.DataFrame:
    """Return a row per limit. Accounts do not wait for each other: the one with the most requests takes longest."""
    limits = pd.DataFrame({"requests": asked.sum(), "of_one_account": asked.max()}).rename_axis("name")
    limits.insert(0, "rates", [settings.limits[str(name)] for name in limits.index])
    limits["seconds"] = [
        seconds_needed(count, rates) for count, rates in limits[["of_one_account", "rates"]].to_numpy()
    ]
    return limits

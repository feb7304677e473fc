"""The plan of a range: what each date requests and yields, how long it takes within the limits, and what is urgent.

Values that neither the ledger nor its history shows are null, and are shown as unknown.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import pandas as pd

from pipelines.calendar import dates_between, day_bounds, local_day
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger, Tally
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
    requests = _requests(known, settings)
    dates = known.groupby("date").agg({"state": "first", "usual": "count"} | dict.fromkeys(_COUNTS, "sum"))
    dates["pending"] = dates.pop("pending_media") + dates.pop("pending_download")
    dates["to_run"] = dates["state"].isin(_TO_RUN)
    dates[_BY_ACCOUNT] = requests.groupby(known["date"]).sum()
    dates["estimated"] = _is_guessed(dates) & dates.pop("usual").gt(0)
    dates["recordings_to_fetch"] = _recordings_to_fetch(dates)
    dates["bytes_to_store"] = _bytes_to_store(dates["recordings_to_fetch"], history)
    today = local_day(now, settings.zone)
    dates["days_left"] = [settings.ringcx_retention_days - (today - day).days for day in dates.index]
    dates["urgency"] = _urgency(dates["days_left"], settings)
    limits = _limits(requests.groupby(known["account_id"]).sum(), settings)
    return Plan(dates.reset_index(), limits, sorted(set(history["date"])), settings)


def _is_guessed(dates: pd.DataFrame) -> pd.Series:
    """Return which dates are still to be pulled: the ledger does not know all their recordings."""
    return dates["to_run"] & ~dates["state"].isin(_PULLED)


def _recordings_to_fetch(dates: pd.DataFrame) -> pd.Series:
    """Return the number of each date, null for a date to be pulled whose weekday has no history."""
    recordings = (dates["media"] + dates["download"]).astype("Int64")
    return recordings.mask(_is_guessed(dates) & ~dates["estimated"])


def _bytes_to_store(recordings: pd.Series, history: pd.DataFrame) -> pd.Series:
    """Return the bytes of these recordings by the mean size of those held; null if unknown, but never for none."""
    held = history["recordings_held"].sum()
    mean_size = history["bytes_held"].sum() / held if held else math.nan
    return (recordings.astype("Float64") * mean_size).mask(recordings.eq(0).fillna(False), 0)


def _urgency(days_left: pd.Series, settings: PlanSettings) -> pd.Series:
    steps = [-math.inf, 0, settings.ringcx_retention_margin_days, math.inf]
    labels = pd.cut(days_left, steps, right=False, labels=["probably lost", "urgent", "in time"])
    return labels.astype(_URGENCY)


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
    pull_days = {name: frozenset(ledger.pull_days(name)) for name in REPORTS}
    newest = pd.Series(sorted(frozenset().union(*pull_days.values()), reverse=True), dtype="object")
    recent = newest.groupby([day.weekday() for day in newest]).head(_READ_OF_A_WEEKDAY)
    days_with_states = frozenset(ledger.recording_days())

    def state(day: date, pending: int) -> str:
        if now < day_bounds(day, settings.zone)[1]:
            return "not over"
        pulls = {name: ledger.pulls(name, day) for name in REPORTS if day in pull_days[name]}
        if not pulls:
            return "never pulled"
        if unpulled(pulls, day, settings):
            return "partly pulled"
        return "pending" if pending else "complete"

    def rows(day: date) -> list[dict[str, Any]]:
        tally = ledger.tally(day) if day in days_with_states else ()
        counts = _counts(tally, settings.ringcx_account_ids)
        pending = sum(of_account["pending_media"] + of_account["pending_download"] for of_account in counts.values())
        of_day = {"date": day, "weekday": day.weekday(), "state": state(day, pending)}
        return [{**of_day, "account_id": account, **of_account} for account, of_account in counts.items()]

    read = map_in_order(rows, {*days, *recent})
    return pd.DataFrame([row for _, of_day in read for row in of_day]).sort_values("date")


def _counts(tally: Iterable[Tally], accounts: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return the `_COUNTS` of these accounts."""
    counts = {account: dict.fromkeys(_COUNTS, 0) for account in accounts}
    for line in tally:
        of_account = counts.get(line.account_id)
        if of_account is None:
            continue
        of_account["recordings_known"] += line.recordings
        if line.status is Status.archived:
            of_account["recordings_held"] += line.recordings
            of_account["bytes_held"] += line.size
        elif line.status is Status.pending:
            of_account["pending_download" if line.source == INTERACTIONS else "pending_media"] += line.recordings
    return counts


def _requests(known: pd.DataFrame, settings: PlanSettings) -> pd.DataFrame:
    """Return the requests of each date and account to run, in a column for each limit."""
    requests = pd.DataFrame(index=known.index)
    requests["reports"] = sum(len(PARTS[report]) for report in LEGACY) if settings.uses_reports else 0
    requests["metadata"] = 0
    if settings.uses_interactions:
        requests["metadata"] = [_windows(day, settings) for day in known["date"]]
    requests["media"] = known["pending_media"]
    requests["download"] = known["pending_download"]
    # With both sources a recording may come either way: the stricter limit is the one planned with.
    to_come = (known["usual"] - known["recordings_known"]).clip(lower=0).mask(known["state"].isin(_PULLED))
    requests["download" if settings.uses_interactions else "media"] += to_come.fillna(0).astype(int)
    return requests.where(known["state"].isin(_TO_RUN), 0)


def _windows(day: date, settings: PlanSettings) -> int:
    """Return how many windows cover a date, which may have 23, 24 or 25 hours."""
    begin, end = day_bounds(day, settings.zone)
    return math.ceil((end - begin).total_seconds() / settings.ringcx_metadata_window)


def _limits(requests: pd.DataFrame, settings: PlanSettings) -> pd.DataFrame:
    """Return a row per limit. Accounts do not wait for each other: the one with the most requests takes longest."""
    limits = pd.DataFrame({"requests": requests.sum(), "of_one_account": requests.max()}).rename_axis("name")
    limits.insert(0, "rates", [settings.limits[str(name)] for name in limits.index])
    limits["seconds"] = [
        seconds_needed(count, rates) for count, rates in limits[["of_one_account", "rates"]].to_numpy()
    ]
    return limits

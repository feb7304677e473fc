"""The plan of a range: what each date requests and yields, how long it takes within the limits, and what is urgent.

Values that neither the ledger nor its history shows are null, and are shown as unknown.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa

from pipelines.calendar import dates_between, day_bounds, local_day
from pipelines.ledger.schema import STATE_SCHEMA
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.limits.limiter import MARGIN_S, Rate
from pipelines.ringcx.reports.columns import INTERACTIONS, LEGACY, REPORTS
from pipelines.settings import PlanSettings
from pipelines.steps.link.recordings_table import RecordingsTable
from pipelines.steps.parallel import map_in_order
from pipelines.steps.pull.coverage import unpulled
from pipelines.steps.pull.reports import PARTS

# A quarter of a year of each weekday would follow the season; two months follow the account as it is now.
DATES_OF_A_WEEKDAY = 8
# A few more are read, since some of the newest may be pulled only in part.
_READ_OF_A_WEEKDAY = DATES_OF_A_WEEKDAY + 4
_PULLED = ("complete", "pending")
_TO_RUN = ("pending", "partly pulled", "never pulled")
_IN_ORDER = ["urgent", "in time", "probably lost"]
_PENDING = ["pending_media", "pending_download"]
_COUNTS = ["recordings_known", "recordings_held", "bytes_held", *_PENDING]
_BY_ACCOUNT = ["reports", "metadata", "media", "download"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan. `dates`: a row per date. `limits`: a row per limit, by name. `basis`: the dates behind the estimates."""

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
    typical = history.groupby(["weekday", "account_id"])["recordings_known"].median().round().rename("usual")
    known = read[read["date"].between(first, last)].join(typical, on=["weekday", "account_id"])
    requests = _requests(known, settings)
    dates = known.groupby("date").agg({"state": "first", "usual": "count"} | dict.fromkeys(_COUNTS, "sum"))
    dates["pending"] = dates.pop("pending_media") + dates.pop("pending_download")
    dates["to_run"] = dates["state"].isin(_TO_RUN)
    dates[_BY_ACCOUNT] = requests.groupby(known["date"]).sum()
    is_guessed = dates["to_run"] & ~dates["state"].isin(_PULLED)  # the ledger does not know all recordings
    dates["estimated"] = is_guessed & dates.pop("usual").gt(0)
    to_fetch = (dates["media"] + dates["download"]).astype("Int64")
    dates["recordings_to_fetch"] = to_fetch.mask(is_guessed & ~dates["estimated"])  # a weekday without history
    held, recordings = history["recordings_held"].sum(), dates["recordings_to_fetch"]
    mean_size = history["bytes_held"].sum() / held if held else math.nan
    # Null if unknown, but never for no recordings.
    dates["bytes_to_store"] = (recordings.astype("Float64") * mean_size).mask(recordings.eq(0).fillna(False), 0)
    today = local_day(now, settings.zone)
    dates["days_left"] = [settings.ringcx_retention_days - (today - day).days for day in dates.index]
    steps = [-math.inf, 0, settings.ringcx_retention_margin_days, math.inf]
    urgency = pd.cut(dates["days_left"], steps, right=False, labels=["probably lost", "urgent", "in time"])
    dates["urgency"] = urgency.cat.reorder_categories(_IN_ORDER, ordered=True)
    limits = _limits(requests.groupby(known["account_id"]).sum(), settings)
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
    pull_days = {name: frozenset(ledger.days("report_pulls", name)) for name in REPORTS}
    newest = pd.Series(sorted(frozenset().union(*pull_days.values()), reverse=True), dtype="object")
    recent = newest.groupby([day.weekday() for day in newest]).head(_READ_OF_A_WEEKDAY)
    days_with_states = frozenset(ledger.days("recording_states"))

    def state(day: date) -> str:
        if now < day_bounds(day, settings.zone)[1]:
            return "not over"
        pulls = {name: ledger.pulls(name, day) for name in REPORTS if day in pull_days[name]}
        if not pulls:
            return "never pulled"
        return "partly pulled" if unpulled(pulls, day, settings) else "complete"

    def read(day: date) -> tuple[str, pa.Table]:
        lines = ledger.current([day]) if day in days_with_states else STATE_SCHEMA.empty_table()
        groups = RecordingsTable.of(lines).lines.group_by(["account_id", "source", "status"])
        counted = groups.aggregate([("recording_id", "count"), ("size", "sum")])
        return state(day), counted.append_column("date", pa.repeat(pa.scalar(day), counted.num_rows))

    of_days = dict(map_in_order(read, sorted({*days, *recent})))
    index = pd.MultiIndex.from_product([of_days, settings.ringcx_account_ids], names=["date", "account_id"])
    found = _counts(pa.concat_tables(counted for _, counted in of_days.values()))
    counts = found.reindex(index, fill_value=0).reset_index()
    counts["weekday"] = [day.weekday() for day in counts["date"]]
    counts["state"] = [of_days[day][0] for day in counts["date"]]
    has_pending = counts.groupby("date")[_PENDING].transform("sum").any(axis="columns")
    counts.loc[has_pending & (counts["state"] == "complete"), "state"] = "pending"
    return counts


def _counts(counted: pa.Table) -> pd.DataFrame:
    """Return the `_COUNTS` of each date and account, from counts by date, account, source and status."""
    found = counted.to_pandas()
    is_held, is_pending = found["status"] == Status.archived, found["status"] == Status.pending
    is_download, recordings = found["source"] == INTERACTIONS, found["recording_id_count"]
    found["recordings_known"] = recordings
    found["recordings_held"] = recordings.where(is_held, 0)
    found["bytes_held"] = found["size_sum"].where(is_held, 0)
    found["pending_media"] = recordings.where(is_pending & ~is_download, 0)
    found["pending_download"] = recordings.where(is_pending & is_download, 0)
    return found.groupby(["date", "account_id"])[_COUNTS].sum().astype("int64")


def _requests(known: pd.DataFrame, settings: PlanSettings) -> pd.DataFrame:
    """Return the requests of each date and account to run, in a column for each limit."""
    requests = pd.DataFrame(index=known.index)
    requests["reports"] = sum(len(PARTS[report]) for report in LEGACY) if settings.uses_reports else 0
    requests["metadata"] = 0
    if settings.uses_interactions:
        bounds = [day_bounds(day, settings.zone) for day in known["date"]]  # of 23, 24 or 25 hours
        window = timedelta(seconds=settings.ringcx_metadata_window)
        requests["metadata"] = [math.ceil((end - begin) / window) for begin, end in bounds]
    requests["media"] = known["pending_media"]
    requests["download"] = known["pending_download"]
    # With both sources a recording may come either way: the stricter limit is the one planned with.
    to_come = (known["usual"] - known["recordings_known"]).clip(lower=0).mask(known["state"].isin(_PULLED))
    requests["download" if settings.uses_interactions else "media"] += to_come.fillna(0).astype(int)
    return requests.where(known["state"].isin(_TO_RUN), 0)


def _limits(requests: pd.DataFrame, settings: PlanSettings) -> pd.DataFrame:
    """Return a row per limit. Accounts do not wait for each other: the one with the most requests takes longest."""
    limits = pd.DataFrame({"requests": requests.sum(), "of_one_account": requests.max()}).rename_axis("name")
    limits.insert(0, "rates", [settings.limits[str(name)] for name in limits.index])
    limits["seconds"] = [
        seconds_needed(count, rates) for count, rates in limits[["of_one_account", "rates"]].to_numpy()
    ]
    return limits

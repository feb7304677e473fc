"""A plan in words: tables for a screen, the steps that launch it, one sentence at the end; and as one JSON document.

`format`: `ringcx-archive/plan/1`; `from`, `to`, `made_at`; `dates`: one object a date; `limits`; `s3`; `estimate`: the
dates it comes from; `backfills`: ranges and commands in their order; `sentence`.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from pipelines.ringcx.limits import Rate
from pipelines.steps.planning.plan import Budget, Plan, PlannedDay
from pipelines.steps.planning.storing import monthly_cost
from pipelines.steps.planning.stretches import Stretch, backfills, shown
from pipelines.steps.planning.usual import DATES_OF_A_WEEKDAY

FORMAT = "ringcx-archive/plan/1"
_WIDTH = 120
_LIMITS = {
    "reports": "report requests",
    "metadata": "interaction metadata",
    "media": "recordings by link",
    "download": "recordings by id",
    "auth": "log-ins",
}


def lines(plan: Plan) -> list[str]:
    """Everything a person needs, in the order in which it is read."""
    said = [*_comes_of_it(plan), *_urgent(plan)]
    return [*_dates(plan), "", *_limits(plan), "", *_wrapped(said), "", *_launch(plan), *_wrapped([sentence(plan)])]


def sentence(plan: Plan) -> str:
    """What it comes to."""
    to_run = plan.to_run
    if not to_run:
        return f"Nothing to run: none of {_number(len(plan.days), 'date')} has anything to fetch by the ledger's word."
    left_out = len(plan.days) - len(to_run)
    return (
        f"{_number(len(to_run), 'date')} to run, {left_out:,} left out: {_recordings_to_come(plan)};"
        f" at least {hours(plan.longest.seconds)}, set by the limit {plan.longest.name}. Retries are not counted. "
        "Nothing was changed and nothing asked for."
    )


def launch_commands(plan: Plan) -> list[str]:
    """The commands that launch it, in their order."""
    return [command(one) for one in backfills(plan)]


def command(stretch: Stretch) -> str:
    """Dagster's own backfill of a stretch."""
    return (
        ".venv/bin/dagster job backfill -w workspace.yaml -j archive_day "
        f"--from {stretch.first} --to {stretch.last} --noprompt"
    )


def ui_range(stretch: Stretch) -> str:
    """As the dialog of the UI takes it."""
    return f"[{stretch.first}...{stretch.last}]"


def hours(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 3600:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:,.1f} hours" if seconds < 72 * 3600 else f"{seconds / 86400:,.1f} days"


def document(plan: Plan, made_at: datetime) -> dict[str, object]:
    """The whole plan for `--json`."""
    prices = plan.terms.prices
    return {
        "format": FORMAT,
        "from": plan.first.isoformat(),
        "to": plan.last.isoformat(),
        "made_at": made_at.isoformat(),
        "sentence": sentence(plan),
        "dates_to_run": len(plan.to_run),
        "dates_unknown": len(plan.unknown),
        "recordings_to_fetch": plan.to_fetch,
        "bytes_to_store": round(plan.to_store),
        "limits": [
            {
                "name": one.name,
                "rates": _rates(one.rates),
                "requests": one.requests,
                "of_one_account": one.busiest,
                "seconds": round(one.seconds, 1),
            }
            for one in plan.budgets
        ],
        "longest": plan.longest.name,
        "seconds": round(plan.longest.seconds, 1),
        "s3": {
            "puts": plan.s3.puts,
            "lists": plan.s3.lists,
            "reads": plan.s3.reads,
            "looks": plan.s3.looks,
            "currency": prices.currency,
            "once": round(plan.s3.cost(prices), 4),
            "each_month": round(monthly_cost(plan.to_store, prices), 4),
        },
        "estimate": {"dates": [day.isoformat() for day in plan.history.basis()]},
        "backfills": [
            {
                "from": one.first.isoformat(),
                "to": one.last.isoformat(),
                "urgency": one.urgency,
                "command": command(one),
            }
            for one in backfills(plan)
        ],
        "dates": [day.as_json() for day in plan.days],
    }


def write_file(plan: Plan, path: Path, made_at: datetime) -> None:
    """Write the document beside `path`, then put it in its place: it is there whole or not at all."""
    beside = path.with_name(f"{path.name}.partial")
    beside.write_text(f"{json.dumps(document(plan, made_at), indent=1)}\n", encoding="utf-8")
    beside.replace(path)


def table(plan: Plan) -> list[tuple[str, int, str, str, int, int, str, str]]:
    """A line for each stretch of dates: dates, how many, state, urgency, days left, requests, recordings, GB."""
    return [
        (
            f"{one.first}" if one.first == one.last else f"{one.first} - {one.last}",
            len(one.days),
            str(one.kind),
            one.urgency if one.days[0].to_run else "",
            one.days_left,
            sum(sum(day.requests.values()) for day in one.days),
            _recordings(one.days),
            _gigabytes(one.days),
        )
        for one in shown(plan)
    ]


def _dates(plan: Plan) -> list[str]:
    head = f"{'dates':<25}{'count':>7}  {'state':<14}{'urgency':<15}{'days left':>9}{'requests':>10}"
    found = [f"{head}{'recordings':>14}{'GB':>10}"]
    for dates, count, state, urgency, left, requests, recordings, size in table(plan):
        found.append(
            f"{dates:<25}{count:>7,}  {state:<14}{urgency:<15}{left:>9,}{requests:>10,}{recordings:>14}{size:>10}"
        )
    return found


def _limits(plan: Plan) -> list[str]:
    found = [f"{'limit':<10}{'':<22}{'requests/s':<16}{'requests':>12}{'of one account':>16}  at least"]
    for one in plan.budgets:
        if one.requests:
            what = f"{one.name:<10}{_LIMITS[one.name]:<22}{_rates(one.rates):<16}"
            took = hours(one.seconds) if one.rates else "no limit"
            found.append(f"{what}{one.requests:>12,}{_of_one(one):>16}  {took}")
    return found


def _of_one(budget: Budget) -> str:
    return "all together" if budget.name == "auth" else f"{budget.busiest:,}"


def _comes_of_it(plan: Plan) -> list[str]:
    prices = plan.terms.prices
    held = sum(day.held for day in plan.days)
    held_bytes = sum(day.held_bytes for day in plan.days)
    known = sum(day.pending for day in plan.to_run)
    found = [
        f"Held already on these dates: {held:,} recordings, {held_bytes / 1e9:,.2f} GB.",
        f"To fetch: {known:,} known, {max(0, plan.to_fetch - known):,} estimated; {_size(plan)} to store.",
    ]
    if any(day.estimated for day in plan.to_run):
        basis = plan.history.basis()
        found.append(
            f"Estimated by the ledger: for each weekday the median of its newest dates that were pulled whole (up to "
            f"{DATES_OF_A_WEEKDAY}), here {_number(len(basis), 'date')} from {basis[0]} to {basis[-1]}."
        )
    if plan.unknown:
        found.append(
            f"Unknown: {_number(len(plan.unknown), 'date')}, since no date of their weekday was pulled whole yet. "
            "Run a week, then plan again. Nothing is added for them, neither recordings, GB, hours of media nor cost."
        )
    asked = plan.s3
    found.append(
        f"S3, by PLAN_PRICE_*: {asked.puts + asked.lists:,} puts and listings, {asked.reads + asked.looks:,} reads and "
        f"looks: {asked.cost(prices):,.2f} {prices.currency} once; "
        f"{monthly_cost(plan.to_store, prices):,.2f} {prices.currency} a month to keep."
    )
    return found


def _urgent(plan: Plan) -> list[str]:
    by_urgency = {
        urgency: [one for one in backfills(plan) if one.urgency == urgency] for urgency in ("urgent", "probably lost")
    }
    found = []
    if urgent := by_urgency["urgent"]:
        days = sum(len(one.days) for one in urgent)
        found.append(
            f"Urgent: the source purges {_number(days, 'date')} within {plan.terms.margin_days} days "
            f"(RINGCX_RETENTION_MARGIN_DAYS), the first {_in_days(urgent[0].days_left)}: run these first."
        )
        if plan.longest.seconds > urgent[0].days_left * 86400:
            found.append("The whole takes longer than that: do not launch the others before these are through.")
    if lost := by_urgency["probably lost"]:
        days = sum(len(one.days) for one in lost)
        found.append(
            f"Probably lost: {_number(days, 'date')} older than the {plan.terms.retention_days} days that the source "
            "keeps recordings (RINGCX_RETENTION_DAYS). Reports may still answer; the recordings may be gone for good."
        )
    return found


def _launch(plan: Plan) -> list[str]:
    stretches = backfills(plan)
    if not stretches:
        return []
    found = [
        "To launch it, by command from the project folder, with DAGSTER_HOME set and the daemon running, in this order:"
    ]
    found += [f"  {command(one)}{_remark(one)}" for one in stretches]
    found.append(
        "or in the UI: Lineage, Materialize all…, Show all partitions, put a range into the field, Launch backfill; "
        "again for the next:"
    )
    found += [f"  {ui_range(one)}{_remark(one)}" for one in stretches]
    found.append("")
    return found


def _remark(stretch: Stretch) -> str:
    return "" if stretch.urgency == "in time" else f"  # {stretch.urgency}"


def _recordings(days: Sequence[PlannedDay]) -> str:
    if all(day.kind == "complete" for day in days):
        return f"{sum(day.found for day in days):,}"
    if not days[0].to_run:
        return "-"
    return _cell([day.to_fetch for day in days], estimated=any(day.estimated for day in days), form=",.0f")


def _gigabytes(days: Sequence[PlannedDay]) -> str:
    if not days[0].to_run:
        return f"{sum(day.held_bytes for day in days) / 1e9:,.2f}" if days[0].kind == "complete" else "-"
    sizes = [None if day.to_store is None else day.to_store / 1e9 for day in days]
    return _cell(sizes, estimated=any(size for size in sizes), form=",.2f")


def _cell(amounts: Sequence[float | None], *, estimated: bool, form: str) -> str:
    """A sum; `~` where it is estimated, `>` where some of it is unknown."""
    known = [amount for amount in amounts if amount is not None]
    if not known:
        return "unknown"
    sign = ">" if len(known) < len(amounts) else ("~" if estimated else "")
    return f"{sign}{format(sum(known), form)}"


def _recordings_to_come(plan: Plan) -> str:
    if len(plan.unknown) == len(plan.to_run):
        return "nobody knows yet how many recordings they have"
    about = "about " if any(day.estimated for day in plan.to_run) else ""
    more = f", and those of {_number(len(plan.unknown), 'date')} of which nobody knows" if plan.unknown else ""
    return f"{about}{_number(plan.to_fetch, 'recording')} to fetch{more}"


def _size(plan: Plan) -> str:
    if not any(day.to_store is not None for day in plan.to_run):
        return "an unknown number of GB"
    more = " and more" if any(day.to_store is None for day in plan.to_run) else ""
    return f"about {plan.to_store / 1e9:,.2f} GB{more}"


def _in_days(days: int) -> str:
    return f"in {_number(days, 'day')}" if days else "today"


def _wrapped(sentences: Iterable[str]) -> list[str]:
    return [line for one in sentences for line in textwrap.wrap(one, _WIDTH)]


def _rates(rates: Sequence[Rate]) -> str:
    return ",".join(f"{rate.limit}/{rate.seconds:g}" for rate in rates) or "none"


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"

"""A plan for people (tables, the commands that launch it, and one sentence) and as one JSON document."""

import textwrap
from datetime import datetime
from typing import Any

import pandas as pd

from pipelines.ringcx.limits.limiter import Rate
from pipelines.steps.plan.estimate import DATES_OF_A_WEEKDAY, Plan, date_ranges
from pipelines.wording import number

_WIDTH = 120
_LIMITS = {
    "reports": "report requests",
    "metadata": "interaction metadata",
    "media": "recordings by link",
    "download": "recordings by id",
}
_COMMAND = ".venv/bin/dagster job backfill -w workspace.yaml -j archive_day --from {from} --to {to} --noprompt"
_TO_LAUNCH = "To launch it, run these in order in the project folder, with DAGSTER_HOME set and the daemon running:\n"


def text(plan: Plan) -> str:
    """Return the plan as Markdown, in reading order."""
    paragraphs = [
        table.to_markdown(index=False, disable_numparse=True, colalign=["left"] * 2 + ["right"] * (table.shape[1] - 2))
        for table in (_ranges_table(plan), _limits_table(plan))
    ]
    paragraphs.append("\n".join(textwrap.fill(remark, _WIDTH) for remark in _remarks(plan)))
    commands = [f"    {dates['command']}  # {dates['urgency']}" for dates in _backfills(plan)]
    if commands:
        paragraphs.append("\n".join([_TO_LAUNCH, *commands]))
    paragraphs.append(textwrap.fill(sentence(plan), _WIDTH))
    return "\n\n".join(paragraphs)


def sentence(plan: Plan) -> str:
    """Return one sentence with the totals of the plan."""
    total = plan.totals
    to_run, unknown = total["dates_to_run"], total["dates_unknown"]
    if not to_run:
        planned = number(total["dates"], "planned date")
        return f"Nothing to run: according to the ledger, nothing is left to fetch on the {planned}."
    about = "about " if plan.to_run["estimated"].any() else ""
    to_fetch = f"{about}{number(total['recordings_to_fetch'], 'recording')} to fetch"
    if unknown == to_run:
        to_fetch = "how many recordings they have is unknown"
    elif unknown:
        to_fetch += f", and an unknown number on {number(unknown, 'date')}"
    return (
        f"{number(to_run, 'date')} to run, {total['dates'] - to_run:,} left out: {to_fetch}; at least "
        f"{_hours(total['seconds'])}, set by the limit `{total['longest']}`. Retries are not counted. Nothing was "
        "changed or requested."
    )


def document(plan: Plan, made_at: datetime) -> dict[str, Any]:
    """Return the whole plan for `--json`: totals, limits, cost, the dates behind the estimates, backfills, dates."""
    names = list(_LIMITS)
    requests = [{name: count for name, count in row.items() if count} for row in _records(plan.dates[names])]
    return {
        "format": "ringcx-archive/plan/2",
        "from": plan.dates["date"].iloc[0],
        "to": plan.dates["date"].iloc[-1],
        "made_at": made_at.isoformat(),
        "sentence": sentence(plan),
        **plan.totals,
        "limits": _records(plan.limits.assign(rates=plan.limits["rates"].map(_rates)).reset_index()),
        "storage": _storage(plan),
        "estimate": {"dates": plan.basis},
        "backfills": _backfills(plan),
        "dates": _records(plan.dates.drop(columns=names).assign(requests=pd.Series(requests))),
    }


def _ranges_table(plan: Plan) -> pd.DataFrame:
    """Return a row per range of similar dates: what is to be requested, fetched and stored, or what is held."""
    rows = []
    for dates in _records(date_ranges(plan.dates, "state", "urgency")):
        recordings, gigabytes = _amounts(dates)
        rows.append(
            {
                "dates": f"{dates['from']}" if dates["count"] == 1 else f"{dates['from']} - {dates['to']}",
                "count": dates["count"],
                "state": dates["state"],
                "urgency": dates["urgency"] if dates["to_run"] else "",
                "days left": dates["days_left"],
                "requests": f"{dates['requests']:,}",
                "recordings": recordings,
                "GB": gigabytes,
            }
        )
    return pd.DataFrame(rows)


def _amounts(dates: dict[str, Any]) -> tuple[str, str]:
    """Return the recordings and gigabytes of a range; `~` means about, `>` more than."""
    if dates["state"] == "complete":
        return f"{dates['recordings_known']:,}", _gigabytes(dates["bytes_held"])
    if not dates["to_run"]:
        return "-", "-"
    if dates["unknown"] == dates["count"]:
        return "unknown", "unknown"
    sign = "~" if dates["estimated"] else ""
    if dates["unknown"]:
        sign = ">"
    recordings = f"{sign}{dates['recordings_to_fetch']:,}"
    if dates["recordings_to_fetch"] and not dates["bytes_to_store"]:
        return recordings, "unknown"
    return recordings, f"{sign or '~'}{_gigabytes(dates['bytes_to_store'])}"


def _limits_table(plan: Plan) -> pd.DataFrame:
    """Return a row per limit that the plan uses."""
    used = plan.limits[plan.limits["requests"] > 0]
    return pd.DataFrame(
        {
            "limit": used.index,
            "of": used.index.map(_LIMITS),
            "rate (requests/seconds)": used["rates"].map(_rates),
            "requests": used["requests"].map("{:,}".format),
            "of one account": used["of_one_account"].map("{:,}".format),
            "at least": used["seconds"].map(_hours).where(used["rates"].map(bool), "no limit"),
        }
    )


def _remarks(plan: Plan) -> list[str]:
    to_run, total, cost = plan.to_run, plan.totals, _storage(plan)
    known = int(to_run["pending"].sum())
    estimated = max(0, total["recordings_to_fetch"] - known)
    is_partial = to_run["bytes_to_store"].isna().any()
    about = "at least" if is_partial else "about"
    size = f"{about} {_gigabytes(total['bytes_to_store'])} GB to store"
    price = "{once:,.2f} {currency} to upload, {each_month:,.2f} {currency} a month to keep".format(**cost)
    if is_partial and not total["bytes_to_store"]:
        size, price = "the size is unknown", "the cost is unknown, too"
    remarks = [
        f"To fetch: {known:,} known, {estimated:,} estimated; {size}.",
        f"At the prices of PLAN_PRICE_*: {price}.",
    ]
    if to_run["estimated"].any():
        remarks.append(
            f"Estimated from the ledger: for each weekday the median of its newest fully pulled dates (up to "
            f"{DATES_OF_A_WEEKDAY}), here {number(len(plan.basis), 'date')} from {plan.basis[0]} to {plan.basis[-1]}."
        )
    if total["dates_unknown"]:
        remarks.append(
            f"Unknown: {number(total['dates_unknown'], 'date')}, since no date of the same weekday was fully pulled "
            "yet. Run a week, then plan again: unknown dates add no recordings, GB, download hours or cost to the plan."
        )
    return remarks


def _storage(plan: Plan) -> dict[str, Any]:
    """Return the cost of putting the recordings once and of keeping them; Amazon counts a GB as 2^30 bytes."""
    prices, total = plan.settings, plan.totals
    return {
        "puts": total["recordings_to_fetch"],
        "currency": prices.plan_currency,
        "once": round(total["recordings_to_fetch"] / 1000 * prices.plan_price_put_per_1000, 4),
        "each_month": round(total["bytes_to_store"] / 2**30 * prices.plan_price_gb_month, 4),
    }


def _backfills(plan: Plan) -> list[dict[str, Any]]:
    """Return the backfills to launch, in order: what the source purges soon, the rest, what is probably lost."""
    return [
        {name: dates[name] for name in ("from", "to", "urgency")} | {"command": _COMMAND.format(**dates)}
        for dates in _records(date_ranges(plan.to_run, "urgency"))
    ]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dicts of Python values, None for null."""
    rows = table.astype("object").where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _rates(rates: tuple[Rate, ...]) -> str:
    return ",".join(f"{rate.limit}/{rate.seconds:g}" for rate in rates) or "none"


def _hours(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    if seconds < 3600:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:,.1f} hours" if seconds < 72 * 3600 else f"{seconds / 86400:,.1f} days"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.2f}"

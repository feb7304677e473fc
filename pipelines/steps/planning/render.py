"""A plan in words: tables for a screen, the steps that launch it, one sentence at the end; and as one JSON document.

`format`: `ringcx-archive/plan/2`; `from`, `to`, `made_at`; `dates`: one object a date; `limits`; `storage`: its cost;
`estimate`: the dates it comes from; `backfills`: ranges and commands in their order; `sentence`.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Hashable, Mapping
from datetime import datetime
from typing import Any

import pandas as pd

from pipelines.ringcx.limits import Rate
from pipelines.steps.planning.estimate import DATES_OF_A_WEEKDAY, Plan, backfills, date_ranges

FORMAT = "ringcx-archive/plan/2"
_WIDTH = 120
_GB = 2**30
_LIMITS = {
    "reports": "report requests",
    "metadata": "interaction metadata",
    "media": "recordings by link",
    "download": "recordings by id",
    "auth": "log-ins",
}


def text(plan: Plan) -> str:
    """Return everything a person needs, in the order in which it is read, as Markdown."""
    remarks = [line for one in _remarks(plan) for line in textwrap.wrap(one, _WIDTH)]
    tables = [
        table.to_markdown(index=False, disable_numparse=True, colalign=["left"] * 2 + ["right"] * (table.shape[1] - 2))
        for table in (ranges_table(plan), limits_table(plan))
    ]
    parts = [*tables, "\n".join(remarks), _launch(plan), textwrap.fill(sentence(plan), _WIDTH)]
    return "\n\n".join(part for part in parts if part)


def sentence(plan: Plan) -> str:
    """Return what it comes to."""
    to_run, unknown = len(plan.to_run), plan.unknown
    if not to_run:
        return f"Nothing to run: by the ledger, nothing is left to fetch on {_number(len(plan.dates), 'date')}."
    about = "about " if plan.to_run["estimated"].any() else ""
    to_come = f"{about}{_number(plan.to_fetch, 'recording')} to fetch"
    if unknown == to_run:
        to_come = "how many recordings they have is unknown"
    elif unknown:
        to_come += f", and an unknown number on {_number(unknown, 'date')}"
    return (
        f"{_number(to_run, 'date')} to run, {len(plan.dates) - to_run:,} left out: {to_come}; at least "
        f"{hours(plan.seconds)}, set by the limit {plan.longest}. Retries are not counted. Nothing was changed and "
        "nothing asked for."
    )


def ranges_table(plan: Plan) -> pd.DataFrame:
    """Return a row per range of dates that are alike: what is to be asked for, fetched and stored, or what is held."""
    rows = []
    for _, one in date_ranges(plan.dates, "state", "urgency").iterrows():
        recordings = gigabytes = "-"
        if one["to_run"]:
            known = one["count"] > one["unknown"]
            sign = (">" if one["unknown"] else "~" if one["estimated"] else "") if known else "unknown"
            recordings = f"{sign}{one['to_fetch']:,}" if known else sign
            stored = known and (one["to_store"] or not one["to_fetch"])
            gigabytes = f"{sign or '~'}{one['to_store'] / 1e9:,.2f}" if stored else "unknown"
        elif one["state"] == "complete":
            recordings, gigabytes = f"{one['found']:,}", f"{one['held_bytes'] / 1e9:,.2f}"
        rows.append(
            {
                "dates": f"{one['from']}" if one["count"] == 1 else f"{one['from']} - {one['to']}",
                "count": one["count"],
                "state": one["state"],
                "urgency": str(one["urgency"]) if one["to_run"] else "",
                "days left": one["days_left"],
                "requests": f"{one['requests']:,}",
                "recordings": recordings,
                "GB": gigabytes,
            }
        )
    return pd.DataFrame(rows)


def limits_table(plan: Plan) -> pd.DataFrame:
    """Return a row per limit that the plan touches."""
    used = plan.limits[plan.limits["requests"] > 0]
    return pd.DataFrame(
        {
            "limit": used.index,
            "of": [_LIMITS[name] for name in used.index],
            "requests/s": used["rates"].map(_rates),
            "requests": used["requests"].map("{:,}".format),
            "of one account": used["of_one_account"].map("{:,}".format),
            "at least": [hours(one["seconds"]) if one["rates"] else "no limit" for _, one in used.iterrows()],
        }
    )


def document(plan: Plan, made_at: datetime) -> str:
    """Return the whole plan for `--json`."""
    dates = plan.dates.rename(
        columns={
            "found": "recordings_known",
            "held": "recordings_held",
            "held_bytes": "bytes_held",
            "to_fetch": "recordings_to_fetch",
            "to_store": "bytes_to_store",
        }
    )
    names = list(_LIMITS)[:-1]
    requests = [{name: count for name, count in one.items() if count} for one in _records(dates[names])]
    dates = dates.drop(columns=names).assign(requests=pd.Series(requests))
    limits = plan.limits.assign(rates=plan.limits["rates"].map(_rates)).reset_index()
    found = {
        "format": FORMAT,
        "from": plan.dates["date"].iloc[0],
        "to": plan.dates["date"].iloc[-1],
        "made_at": made_at.isoformat(),
        "sentence": sentence(plan),
        "dates_to_run": len(plan.to_run),
        "dates_unknown": plan.unknown,
        "recordings_to_fetch": plan.to_fetch,
        "bytes_to_store": round(plan.to_store),
        "limits": _records(limits),
        "longest": plan.longest,
        "seconds": plan.seconds,
        "storage": storage(plan),
        "estimate": {"dates": plan.basis},
        "backfills": [
            {"from": one["from"], "to": one["to"], "urgency": one["urgency"], "command": command(one)}
            for one in _records(backfills(plan))
        ],
        "dates": _records(dates),
    }
    return json.dumps(found, indent=1, default=str)


def storage(plan: Plan) -> dict[str, Any]:
    """Return what it costs to put the recordings once and to keep them, by PLAN_PRICE_*."""
    prices = plan.settings
    return {
        "puts": plan.to_fetch,
        "currency": prices.plan_currency,
        "once": round(plan.to_fetch / 1000 * prices.plan_price_put_per_1000, 4),
        "each_month": round(plan.to_store / _GB * prices.plan_price_gb_month, 4),
    }


def command(one: Mapping[Hashable, Any]) -> str:
    """Return Dagster's own backfill of a range."""
    return (
        ".venv/bin/dagster job backfill -w workspace.yaml -j archive_day "
        f"--from {one['from']} --to {one['to']} --noprompt"
    )


def hours(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 3600:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds / 3600:,.1f} hours" if seconds < 72 * 3600 else f"{seconds / 86400:,.1f} days"


def _remarks(plan: Plan) -> list[str]:
    to_run, unknown, cost = plan.to_run, plan.unknown, storage(plan)
    known = int(to_run["pending"].sum())
    more = " and more" if to_run["to_store"].isna().any() else ""
    size = f"about {plan.to_store / 1e9:,.2f} GB{more}"
    if to_run["to_store"].isna().all():
        size = "an unknown number of GB"
    held, held_bytes = int(plan.dates["held"].sum()), int(plan.dates["held_bytes"].sum())
    price = "{:,.2f} {currency} to put them, {:,.2f} {currency} a month to keep"
    said = [
        f"Held already on these dates: {held:,} recordings, {held_bytes / 1e9:,.2f} GB.",
        f"To fetch: {known:,} known, {max(0, plan.to_fetch - known):,} estimated; {size} to store.",
        f"By PLAN_PRICE_*: {price.format(cost['once'], cost['each_month'], currency=cost['currency'])}.",
    ]
    if to_run["estimated"].any():
        said.append(
            f"Estimated from the ledger: for each weekday the median of its newest dates that were pulled whole (up to "
            f"{DATES_OF_A_WEEKDAY}), here {_number(len(plan.basis), 'date')} from {plan.basis[0]} to {plan.basis[-1]}."
        )
    if unknown:
        said.append(
            f"Unknown: {_number(unknown, 'date')}, since no date of their weekday was pulled whole yet. Run a week, "
            "then plan again. The plan adds no recordings, GB, hours of media or cost for them."
        )
    if len(urgent := to_run[to_run["urgency"] == "urgent"]):
        left = int(urgent["days_left"].min())
        said.append(
            f"Urgent: the source purges {_number(len(urgent), 'date')} within "
            f"{plan.settings.ringcx_retention_margin_days} days (RINGCX_RETENTION_MARGIN_DAYS), the first "
            f"{'in ' + _number(left, 'day') if left else 'today'}: run these first."
        )
        if plan.seconds > left * 86400:
            said.append("The whole plan takes longer than that: launch the others only when these are done.")
    if lost := int((to_run["urgency"] == "probably lost").sum()):
        said.append(
            f"Probably lost: {_number(lost, 'date')} older than the {plan.settings.ringcx_retention_days} days that "
            "the source keeps recordings (RINGCX_RETENTION_DAYS). Reports may still answer; the recordings may be gone."
        )
    return said


def _launch(plan: Plan) -> str:
    ranges = _records(backfills(plan))
    if not ranges:
        return ""
    remarks = ["" if one["urgency"] == "in time" else f"  # {one['urgency']}" for one in ranges]
    commands = [f"    {command(one)}{remark}" for one, remark in zip(ranges, remarks, strict=True)]
    in_ui = [f"    [{one['from']}...{one['to']}]{remark}" for one, remark in zip(ranges, remarks, strict=True)]
    by_command = (
        "To launch it, by command from the project folder, with DAGSTER_HOME set and the daemon running, in order:"
    )
    by_hand = (
        "or in the UI: Lineage, Materialize all…, Show all partitions, a range, Launch backfill; then the next range:"
    )
    return "\n".join([by_command, "", *commands, "", by_hand, "", *in_ui])


def _records(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """The rows as Python values, None for null."""
    return table.astype("object").where(table.notna(), None).to_dict("records")


def _rates(rates: tuple[Rate, ...]) -> str:
    return ",".join(f"{rate.limit}/{rate.seconds:g}" for rate in rates) or "none"


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"

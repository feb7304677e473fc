"""What a sandbox is started with, as one frozen object. What it does with it is elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, date, datetime
from typing import Any, Literal

from sandbox.calls import CallPlan
from sandbox.faults import Faults, Where


def utc_now() -> datetime:
    """The present, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Requests/seconds, as in `3/60,9/900`, or `none`. They count for each account, log-ins together.

    `metadata` and `download` are the current API's: interaction metadata, and recordings by segment.
    """

    reports: str = "2/60"
    exchange: str = "5/60"
    media: str = "none"
    metadata: str = "3/60,9/900"
    download: str = "120/60"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The credentials that the sandbox accepts. None of them is secret.

    `media_username` empty: recordings are open to anyone who has the link.
    """

    client_id: str = "sandbox-client"
    client_secret: str = "sandbox-client-secret"  # noqa: S105  # made up, and the same for everybody
    jwt: str = "sandbox.user.jwt"
    username: str = "archive@example.com"
    password: str = "sandbox-password"  # noqa: S105
    api_token: str = "aws80:c2353445-0000-4000-8000-5a9d80c0ffee"  # noqa: S105
    media_username: str = ""
    media_password: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """One sandbox.

    Attributes:
        accounts: Sub-accounts that have calls.
        rc_account_id: The RingCentral account that the sub-accounts belong to.
        wem: Whether the user has the WEM access right, which the current API needs.
        seed: Another seed makes other calls.
        same_around: The calls of the two months around this date follow from how many days lie between, not from the
            date itself, so that a test that needs recent dates meets the same calls on whatever day it runs.
        calls_per_day: Least and most calls that start on one UTC day.
        talk_seconds: Least and most length of one agent leg.
        timezone: Where the account works: most calls fall in its day.
        crossing_zones: On each date one call crosses midnight of each of these.
        ready_after_s: A recording can be fetched so long after its call ended.
        rows_after_s: A call appears in reports so long after it ended.
        settle_s: Reports only cover what is at least so long ago.
        recent_periods: A period that reaches nearer than `settle_s` is cut there (`cut`) or answered 400 (`refuse`).
        end_inclusive: Whether a row that starts exactly at the period's end is in the report.
        retention_days: Older recordings are gone (404); None never deletes them.
        media_latency_s: Wait before a recording's first byte, as over a long line.
        public_url: How clients reach the sandbox, if not as the socket is bound.
        evil_host: `host` or `host:port` of hostile links and redirects; empty is `localhost` at the sandbox's own
            port, where what arrives can be seen and is counted.
        clock: The present, for what exists and is ready.
        ticks: Seconds for limits and the lives of tokens.
    """

    accounts: tuple[str, ...] = ("15300002",)
    rc_account_id: str = "37439510"
    wem: bool = True
    seed: int = 20200730
    same_around: date | None = None
    calls_per_day: tuple[int, int] = (20, 60)
    talk_seconds: tuple[int, int] = (3, 20)
    timezone: str = "US/Arizona"
    crossing_zones: tuple[str, ...] = ("UTC", "US/Arizona", "US/Eastern")
    ready_after_s: float = 90.0
    rows_after_s: float = 60.0
    settle_s: float = 300.0
    recent_periods: Literal["cut", "refuse"] = "cut"
    end_inclusive: bool = True
    retention_days: float | None = None
    media_latency_s: float = 0.0
    public_url: str = ""
    evil_host: str = ""
    limits: Limits = field(default_factory=Limits)
    credentials: Credentials = field(default_factory=Credentials)
    faults: Faults = field(default_factory=Faults)
    clock: Callable[[], datetime] = utc_now
    ticks: Callable[[], float] = time.monotonic

    def plan(self) -> CallPlan:
        """What the calls of all its days have in common."""
        return CallPlan(
            seed=self.seed,
            same_around=self.same_around,
            calls_per_day=self.calls_per_day,
            talk_seconds=self.talk_seconds,
            timezone=self.timezone,
            crossing_zones=self.crossing_zones,
        )

    def to_json(self) -> dict[str, Any]:
        """Everything but the two clocks, in the form that `from_json` reads."""
        plain = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("clock", "ticks")}
        plain["same_around"] = self.same_around and self.same_around.isoformat()
        nested = ("limits", "credentials", "faults")
        return {name: asdict(value) if name in nested else value for name, value in plain.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SandboxConfig:
        """Read what `to_json` wrote; omitted settings keep their defaults.

        Raises:
            ValueError: A name that is not a setting or a knob.
        """
        known = {item.name for item in fields(cls)} - {"clock", "ticks"}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"No such setting of the sandbox: {', '.join(unknown)}.")
        read: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        if read.get("same_around"):
            read["same_around"] = date.fromisoformat(read["same_around"])
        if "limits" in read:
            read["limits"] = Limits(**read["limits"])
        if "credentials" in read:
            read["credentials"] = Credentials(**read["credentials"])
        if "faults" in read:
            read["faults"] = Faults.parse(read["faults"])
        return cls(**read)


def demo_config(accounts: tuple[str, ...] = ("15300002",)) -> SandboxConfig:
    """A day that shows some of everything and is small: about 10 to 30 MB a date and account."""
    return SandboxConfig(
        accounts=accounts,
        calls_per_day=(15, 45),
        faults=Faults(
            seed=53,
            late_rows=Where(share=0.03, first=1),
            late_links=Where(share=0.06, first=1),
            link_evil_host=Where(share=0.01),
            link_stray_blanks=Where(share=0.1),
            server_error=Where(share=0.03, first=1),
            not_found=Where(share=0.02),
            not_yet=Where(share=0.05, first=1),
            still_encoding=Where(share=0.05, first=1),
            html_200=Where(share=0.02),
            header_only=Where(share=0.01),
            cut_off=Where(share=0.04, first=1),
            reset=Where(share=0.02, first=1),
            forbidden=Where(share=0.01),
        ),
    )

"""What a running sandbox remembers between requests, and what both reports and recordings ask of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse

from sandbox.audio import AudioStore
from sandbox.calls import Call, Recording
from sandbox.config import SandboxConfig
from sandbox.counters import Counters
from sandbox.faults import Faults
from sandbox.limits import SlidingWindows, parse_rates
from sandbox.links import LinkMaker
from sandbox.tokens import Tokens


class SandboxState:
    """A sandbox's state. Only the server's event loop touches it, apart from `audio`, which threads may share."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.plan = config.plan()
        self.audio = AudioStore()
        self.tokens = Tokens(config.credentials, config.ticks)
        self.reset()

    def reset(self) -> None:
        """Everything as at the start, except that who is logged in stays so."""
        self.counters = Counters()
        self.set_faults(self.config.faults)
        self.set_limits(**asdict(self.config.limits))

    def set_faults(self, faults: Faults) -> None:
        """Set other knobs; the count of first requests and pulls starts again."""
        self.faults = faults
        self.media_progress: Counter[str] = Counter()
        self.row_progress: Counter[str] = Counter()
        self.report_progress: Counter[str] = Counter()

    def set_limits(self, **limits: str) -> None:
        """Other limits, with empty windows.

        Raises:
            ValueError: A name or a text that is not a limit.
        """
        if unknown := sorted(set(limits) - set(asdict(self.config.limits))):
            raise ValueError(f"No such limit: {', '.join(unknown)}.")
        windows = {name: SlidingWindows(parse_rates(text), self.config.ticks) for name, text in limits.items()}
        self.windows: dict[str, SlidingWindows] = {**getattr(self, "windows", {}), **windows}

    def base_url(self, request: Request) -> str:
        """The sandbox as its clients should reach it."""
        if self.config.public_url:
            return self.config.public_url.rstrip("/")
        host, port = request.scope["server"]
        return f"http://{host}:{port}"

    def links(self, request: Request) -> LinkMaker:
        """Writes links that lead back here."""
        base = self.base_url(request)
        return LinkMaker(base, self.config.evil_host or f"localhost:{urlsplit(base).port or 80}")

    def is_foreign(self, request: Request) -> bool:
        """Whether the request was sent to another host name than ours, as hostile links and redirects want it."""
        return request.headers.get("host", "").lower() != urlsplit(self.base_url(request)).netloc.lower()

    def newest_start(self) -> datetime:
        """Reports show nothing that started later."""
        return self.config.clock() - timedelta(seconds=self.config.settle_s)

    def is_over(self, call: Call) -> bool:
        """Whether the call has ended long enough ago to appear in reports."""
        return call.ended_at + timedelta(seconds=self.config.rows_after_s) <= self.config.clock()

    def is_ready(self, recording: Recording) -> bool:
        """Whether the file has been written."""
        return recording.ready_from + timedelta(seconds=self.config.ready_after_s) <= self.config.clock()

    def is_retained(self, recording: Recording) -> bool:
        """Whether the file has not yet been deleted for its age."""
        days = self.config.retention_days
        return days is None or self.config.clock() - recording.started_at <= timedelta(days=days)


def error_answer(
    request: Request, status: int, message: str, *, details: str = "", headers: dict[str, str] | None = None
) -> JSONResponse:
    """An error in the source's form."""
    body = {"generalMessage": message, "details": details, "requestUri": request.url.path, "timestamp": 0}
    return JSONResponse(body, status_code=status, headers=headers)


def throttled_answer(request: Request, retry_after_s: int) -> JSONResponse:
    """429 with `Retry-After`."""
    headers = {"Retry-After": str(retry_after_s)}
    return error_answer(request, 429, "Request rate exceeded", headers=headers)

"""What the sandbox saw: requests, concurrency, over-runs, and credentials that turned up where they should not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Counters:
    """All counts since the start or the last reset. Only the server's event loop touches it."""

    requests: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    media_by_path: Counter[str] = field(default_factory=Counter)
    media_complete_by_path: Counter[str] = field(default_factory=Counter)
    reports: Counter[str] = field(default_factory=Counter)
    windows: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    peak: Counter[str] = field(default_factory=Counter)
    user_agents: Counter[str] = field(default_factory=Counter)
    leaks: list[dict[str, str]] = field(default_factory=list)
    media_bytes: int = 0

    @contextmanager
    def flight(self, kind: str) -> Iterator[None]:
        """Count a request as being answered."""
        self.in_flight[kind] += 1
        self.peak[kind] = max(self.peak[kind], self.in_flight[kind])
        try:
            yield
        finally:
            self.in_flight[kind] -= 1

    def leak(self, where: str, header: str, path: str) -> None:
        """A credential came to a place that must not see it. The credential itself is not kept."""
        self.leaks.append({"where": where, "header": header, "path": path})

    def to_json(self, violations: dict[str, int]) -> dict[str, Any]:
        """The answer of `GET /sandbox/counters`."""
        return {
            "requests": dict(self.requests),
            "statuses": dict(self.statuses),
            "reports": dict(self.reports),
            "windows": dict(self.windows),
            "media_by_path": dict(self.media_by_path),
            "media_complete_by_path": dict(self.media_complete_by_path),
            "media_bytes": self.media_bytes,
            "peak_concurrency": dict(self.peak),
            "violations": violations,
            "logins": {name: self.requests[name] for name in ("oauth", "exchange", "refresh", "legacy_login")},
            "refused": dict(self.refused),
            "leaked_credentials": list(self.leaks),
            "user_agents": dict(self.user_agents),
        }

"""A request as it came over the wire, and the answer to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import unquote


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        method: In capitals.
        host: As in the `Host` header, without a port that goes without saying.
        target: Path and query as they were sent, percent-encoded.
        fields: The headers, names in lower case, in their order.
        body: What came, chunks of HTTP put together.
        secure: Whether it came over TLS.
    """

    method: str
    host: str
    target: str
    fields: tuple[tuple[str, str], ...]
    body: bytes
    secure: bool

    @property
    def path(self) -> str:
        """The path as sent."""
        return self.target.partition("?")[0]

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The query's names and values, decoded."""
        pairs = (pair.partition("=") for pair in self.target.partition("?")[2].split("&") if pair)
        return {unquote(name): unquote(value.replace("+", "%20")) for name, _, value in pairs}

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers by their name in lower case; several of one name are joined with commas."""
        found: dict[str, str] = {}
        for name, value in self.fields:
            found[name] = f"{found[name]},{value}" if name in found else value
        return found


@dataclass(frozen=True)
class Answer:
    """What is sent back. `code` is the error's, for those who count."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    code: str = ""


@dataclass(frozen=True)
class AnsweredRequest:
    """One request and how it was answered, for tests to read afterwards."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    secure: bool
    status: int
    code: str

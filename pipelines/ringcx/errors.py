"""Errors of the source.

An error's text is one sentence with the method, the address without its query, what happened and the remedy. It never
holds a token, a body or a value from a report: error texts end up in logs and in the UI.
"""
# ruff: noqa: N818 - the names say what happened, read as "if the source refused"; a suffix would only repeat "Error"

import httpx

from pipelines.errors import ExpectedError


class SourceError(ExpectedError):
    """The source did not return what was requested."""


class SourceUnavailable(SourceError):
    """Connection errors, timeouts, transient statuses or 5xx used up the attempts. Another run may succeed."""


class BodyBroken(SourceUnavailable):
    """The last response broke off while it was read."""


class BodyStopped(BodyBroken):
    """The last response stalled: no more bytes arrived in time."""


class CredentialsRefused(SourceError):
    """A log-in or a report was refused with 401 or 403; the text names the variables to check."""


class ConnectionNotAllowed(SourceError):
    """A certificate, a proxy or a setting does not allow the connection: not an answer about a report or recording."""


class AccountUnknown(SourceError):
    """The source does not know the RingCentral account in the address; not an answer about the recording."""


class ReportInvalid(SourceError):
    """The response is not a report: it broke off, is too long or too slow, or holds rows that were not requested."""


class NotAReport(ReportInvalid):
    """The body is not the requested report: HTML, a JSON error, empty, cut off, or of another shape."""


class LinkRefused(ValueError):
    """A recording link that must not be requested; `reason` is a code such as `host_not_allowed`."""

    def __init__(self, reason: str, message: str | None = None) -> None:
        super().__init__(message or f"The link of a recording was refused ({reason}); see the row in the report.")
        self.reason = reason


class Stopped(Exception):
    """The stop event was set; the unfinished work is left to another run."""


def shown_url(url: httpx.URL | str) -> str:
    """Return the part of an address that may be logged: scheme, host, port and path; no user, query or fragment."""
    try:
        return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))
    except (httpx.InvalidURL, ValueError):  # ValueError: half of a surrogate pair
        return "an address that cannot be read"

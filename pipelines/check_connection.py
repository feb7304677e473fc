"""`python -m pipelines.check_connection`

Tries everything that a run needs before the first one: log-in, rights, one recording, S3, the ledger's place, clocks,
limits. One line each: ok, warning or failed, with what to do. Asks for two reports of five minutes for each account, or
for five minutes of interaction metadata, and for the first bytes of one recording, each with a permit of its limit.
Keeps nothing but tiny objects under `probes/`. Ends with 0 without a failure, with 1 if there is one, with 2 if the
command or a setting is wrong. What is tried, and how: `steps/connection`.
"""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
from botocore.utils import get_environ_proxies

from pipelines import storage
from pipelines.archive.capabilities import Probes
from pipelines.archive.errors import StorageRefused
from pipelines.calendar import utc_now
from pipelines.command import Parser, ended
from pipelines.ledger.files import LocalFiles
from pipelines.orchestration.resources import Services
from pipelines.ringcx.errors import SourceError, place
from pipelines.ringcx.http.proxies import proxy_for
from pipelines.ringcx.limits.limiter import Rate
from pipelines.ringcx.limits.store import LimiterBroken
from pipelines.settings import Settings, SettingsError, load
from pipelines.steps.connection.lines import Line, failed, not_tried, ok, warning
from pipelines.steps.connection.recordings import Link, RecordingCheck, ledger_links
from pipelines.steps.connection.source import PERIOD, SourceCheck
from pipelines.steps.connection.store import bucket_lines, ledger_line, without_client
from pipelines.steps.pull.reports import ReportSource

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_WIDTH = 120
_INDENT = 11


def checks(services: Services) -> Iterator[Line]:
    """Everything, one after the other; each line as soon as it is known.

    Raises:
        SettingsError: the log-in cannot even be made.
    """
    known = services.settings
    reports = _reports(services)
    yield ok("accounts", f"{', '.join(known.ringcx_account_ids)}; RINGCX_SOURCE is {known.ringcx_source}.")
    yield _limits(services)
    yield ok(
        "retention",
        f"RINGCX_RETENTION_DAYS is {known.ringcx_retention_days}: hold it against `Recording Retention (days)` of the "
        "account in RingCX Admin.",
    )
    yield ok("media hosts", f"recordings are fetched from {', '.join(known.ringcx_media_hosts)} and from nowhere else.")
    yield _network(services)
    source = SourceCheck(
        reports,
        known.ringcx_account_ids,
        known.uses_reports,
        services.interactions if known.uses_interactions else None,
        services.allowed.segments,
        services.clock,
    )
    yield from source.lines()
    for check, fresh, segments in _recording_checks(services, source):
        yield from check.lines([*fresh[:2], *_ledger_links(services, segments=segments), *fresh[2:]])
    try:
        s3 = services.s3
    except StorageRefused as error:
        yield from without_client(error)
        if known.ledger.startswith("s3://"):
            yield not_tried("ledger", "it is in S3, and there is no client for it.")
        else:
            yield ledger_line(LocalFiles(Path(known.ledger)), services.clock)
        return
    yield from bucket_lines(services.bucket, Probes(s3, known.archive_bucket, known.archive_prefix), services.clock, s3)
    yield ledger_line(storage.ledger_files(known, s3), services.clock)


def main(
    arguments: Sequence[str] | None = None,
    s3: S3Client | None = None,
    clock: Callable[[], datetime] = utc_now,
    *,
    backoff_s: float = Services.backoff_s,
) -> int:
    """Run the command, with a client, a clock and waits of one's own if there are; returns its exit code."""

    def work() -> int:
        Parser(
            prog="python -m pipelines.check_connection",
            description="Try everything that a run needs: log-in, rights, one recording, S3, ledger, clocks, limits.",
            epilog="Ends with 0 without a failure, with 1 if there is one, with 2 if command or settings are wrong. "
            f"Asks for reports of {PERIOD.seconds // 60} minutes, each with a permit of its limit; keeps no recording.",
        ).parse_args(sys.argv[1:] if arguments is None else arguments)
        settings = load(Settings)
        services = Services(lambda: settings, clock=clock, backoff_s=backoff_s, s3_client=s3)
        found: Counter[str] = Counter()
        try:
            for line in checks(services):
                found[line.verdict] += 1
                _show(line)
        finally:
            services.close()
        sys.stdout.write(f"{_sentence(found)}\n")
        return 1 if found["failed"] else 0

    return ended(work, stopped="Stopped before the end: what is not shown above was not tried.")


def _reports(services: Services) -> ReportSource:
    try:
        return services.reports
    except ValueError as error:  # a token or an address that no request can bear; its text names the variable
        raise SettingsError(str(error)) from None


def _recording_checks(services: Services, source: SourceCheck) -> Iterator[tuple[RecordingCheck, list[Link], bool]]:
    """How recordings are tried, the links just given, and whether they are the current API's."""
    known, anonymous = services.settings, services.anonymous_recorders
    if known.uses_reports:
        yield (
            RecordingCheck(
                services.recorders.links,
                anonymous.links,
                has_log_in=known.ringcx_media_username is not None,
                subject="a recording",
                plural="links of recordings",
                remedy="set RINGCX_MEDIA_USERNAME and RINGCX_MEDIA_PASSWORD to the log-in of the recordings",
            ),
            source.links,
            False,
        )
    if known.uses_interactions and services.recorders.segments and anonymous.segments:
        yield (
            RecordingCheck(
                services.recorders.segments,
                anonymous.segments,
                has_log_in=True,
                subject="a recording of the current API",
                plural="recordings of the current API",
                remedy="give this user the right to recordings of the sub-account",
            ),
            source.segments,
            True,
        )


def _ledger_links(services: Services, *, segments: bool) -> list[Link]:
    try:
        return ledger_links(services.ledger, segments=segments)
    except StorageRefused:
        return []  # the lines of S3 say so


def _network(services: Services) -> Line:
    """Which proxy requests go through."""
    known = services.settings
    hosts = [host for host in known.ringcx_media_hosts if not host.startswith("*")]
    urls = [known.ringcx_api_url, *([known.current_url] if known.uses_interactions else [])]
    urls += [f"https://{host}" for host in hosts]
    try:
        ways = {place(url): str(proxy_for(httpx.URL(url)) or "no proxy") for url in urls}
    except SourceError as error:
        return failed("network", error)
    with suppress(StorageRefused):  # without a client there is no endpoint; the lines of S3 say so
        endpoint = services.s3.meta.endpoint_url
        named = get_environ_proxies(endpoint).get(urlsplit(endpoint).scheme)  # botocore's own choice
        ways[endpoint] = f"the proxy {place(named if '://' in named else f'http://{named}')}" if named else "no proxy"
    return ok("network", "; ".join(f"{url} is reached through {way}" for url, way in ways.items()) + ".")


def _limits(services: Services) -> Line:
    known = services.settings
    used = [
        *(("reports", "media") if known.uses_reports else ()),
        *(("metadata", "download") if known.uses_interactions else ()),
        "auth",
    ]
    said = ", ".join(f"{name} {_rates(known.limits[name])}" for name in used)
    try:
        silences = services.try_limiter()
    except LimiterBroken as error:
        return failed("limits", f"{said}. {error}")
    if silences:
        held = ", ".join(f"{name} of account {account or 'any'} for {left:.0f} s" for name, account, left in silences)
        return warning("limits", f"{said}. The source asked for a pause, so requests wait: {held}.")
    return ok("limits", f"{said} (requests/seconds for each account); the place where requests are counted works.")


def _rates(rates: Sequence[Rate]) -> str:
    return ",".join(f"{rate.limit}/{rate.seconds:g}" for rate in rates) or "none"


def _show(line: Line) -> None:
    text = f"{line.verdict:<{_INDENT}}{line.subject}: {line.sentence}"
    for part in textwrap.wrap(
        text, _WIDTH, subsequent_indent=" " * _INDENT, break_long_words=False, break_on_hyphens=False
    ):
        sys.stdout.write(f"{part}\n")
    sys.stdout.flush()


def _sentence(found: Counter[str]) -> str:
    warnings = f"{found['warning']} warning{'' if found['warning'] == 1 else 's'}"
    if found["failed"]:
        failures = f"{found['failed']} failure{'' if found['failed'] == 1 else 's'}"
        return f"{failures}, {warnings}: fix what failed from the top down, and check again before the first run."
    untried = f", {found['not tried']} not tried" if found["not tried"] else ""
    return f"No failure, {warnings}{untried}: a first date can be run."


if __name__ == "__main__":
    sys.exit(main())

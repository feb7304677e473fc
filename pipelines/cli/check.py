"""`ringcx-archive check`: checks everything that a first run needs, and says what to do about each failure."""

import textwrap
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from urllib.parse import urlsplit

import click
import httpx
from botocore.utils import get_environ_proxies

from pipelines import storage
from pipelines.archive.capabilities import Probes
from pipelines.aws import S3Client
from pipelines.calendar import local_day
from pipelines.cli.options import Dependencies, subcommand
from pipelines.orchestration.environment import Environment
from pipelines.orchestration.source import Source
from pipelines.ringcx.errors import shown_url
from pipelines.ringcx.http.proxies import proxy_for
from pipelines.ringcx.links import is_segment_link
from pipelines.settings import Settings
from pipelines.steps.connection.recordings import RecordingCheck, ledger_links
from pipelines.steps.connection.result import Graded, Result, check
from pipelines.steps.connection.source import SourceCheck
from pipelines.steps.connection.store import BucketCheck, ledger_works
from pipelines.wording import number

_INDENT = 11
_LAYOUT = textwrap.TextWrapper(120, subsequent_indent=" " * _INDENT, break_long_words=False, break_on_hyphens=False)


def results(environment: Environment, source: Source) -> Iterator[Result]:
    """Run the checks one after another and yield each result immediately; raise ExpectedError if a setting is wrong."""
    settings = environment.settings
    reports, s3, stores = source.reports, environment.s3, environment.stores
    accounts, hosts = ", ".join(settings.ringcx_account_ids), ", ".join(settings.ringcx_media_hosts)
    yield Result("accounts", "ok", f"{accounts}; RINGCX_SOURCE is {settings.ringcx_source}.")
    yield check("limits", partial(_limits, settings, source))
    retention = f"RINGCX_RETENTION_DAYS is {settings.ringcx_retention_days}"
    admin = "compare it with `Recording Retention (days)` of the account in RingCX Admin."
    yield Result("retention", "ok", f"{retention}: {admin}")
    yield _first_date(settings, environment.clock())
    yield Result("media hosts", "ok", f"recordings are fetched from {hosts} and from nowhere else.")
    yield check("network", partial(_network, settings, s3))
    interactions = source.interactions if settings.uses_interactions else None
    of_source = SourceCheck(reports, settings, interactions, source.allowed.segments, environment.clock)
    yield from of_source.results()
    for of_recording, segments in _recording_checks(settings, source):
        fresh = [link for link in of_source.links if is_segment_link(link[1]) is segments]
        known = ledger_links(stores.ledger, segments=segments)
        yield from of_recording.results([*fresh[:2], *known, *fresh[2:]])
    probes = Probes(s3, settings.archive_bucket, settings.archive_prefix)
    yield from BucketCheck(stores.bucket, probes, environment.clock).results(s3)
    yield check("ledger", partial(ledger_works, storage.ledger_files(settings, s3), environment.clock()))


@subcommand("check")
def command(dependencies: Dependencies) -> int:
    """Check everything that a run needs: log-in, rights, one recording, S3, ledger, clocks, limits.

    Requests reports of five minutes from RingCX, within its limits; keeps no recording. Exit code 0: no
    failure; 1: there is one.
    """
    environment = Environment(clock=dependencies.clock, backoff_s=dependencies.backoff_s, s3_client=dependencies.s3)
    grades: Counter[str] = Counter()
    with closing(Source(environment, partial(click.echo, err=True))) as source:
        for result in results(environment, source):
            grades[result.grade] += 1
            text = f"{result.grade:<{_INDENT}}{result.subject}: {result.sentence}"
            click.echo(_LAYOUT.fill(text))
    click.echo(_summary(grades))
    return 1 if grades["failed"] else 0


def _recording_checks(settings: Settings, source: Source) -> Iterator[tuple[RecordingCheck, bool]]:
    """Yield each check of recordings, and whether it checks recordings of the current API."""
    ours, anonymous = source.recording_clients, source.anonymous_recording_clients
    if settings.uses_reports:
        has_log_in = settings.ringcx_media_username is not None
        remedy = "set RINGCX_MEDIA_USERNAME and RINGCX_MEDIA_PASSWORD to the log-in for recordings"
        names = "a recording", "links of recordings"
        yield RecordingCheck(ours.links, anonymous.links, has_log_in, *names, remedy), False
    if settings.uses_interactions and ours.segments and anonymous.segments:
        remedy = "give this user the right to recordings of the sub-account"
        names = "a recording of the current API", "recordings of the current API"
        yield RecordingCheck(ours.segments, anonymous.segments, True, *names, remedy), True


def _first_date(settings: Settings, now: datetime) -> Result:
    kept = local_day(now, settings.zone) - timedelta(days=settings.ringcx_retention_days - 1)
    if "archive_start_date" not in settings.model_fields_set:
        remedy = "for a new archive, set it to that date; for an archive that has run without it, to 2020-01-01."
        return Result(
            "first date", "failed", f"ARCHIVE_START_DATE is not set. RingCX has recordings back to {kept}: {remedy}"
        )
    begins = f"the archive begins on {settings.archive_start_date} (ARCHIVE_START_DATE)"
    return Result("first date", "ok", f"{begins}; RingCX has recordings back to {kept}.")


def _network(settings: Settings, s3: S3Client) -> Graded:
    urls = [settings.ringcx_api_url]
    if settings.uses_interactions:
        urls.append(settings.current_url)
    urls += [f"https://{host}" for host in settings.ringcx_media_hosts if not host.startswith("*")]
    proxies = {shown_url(url): str(proxy_for(httpx.URL(url)) or "") for url in urls}
    endpoint = s3.meta.endpoint_url
    proxy = get_environ_proxies(endpoint).get(urlsplit(endpoint).scheme)  # botocore's own choice
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    proxies[endpoint] = f"the proxy {shown_url(proxy)}" if proxy else ""
    ways = [f"{url} is reached {f'through {proxy}' if proxy else 'directly'}" for url, proxy in proxies.items()]
    return "ok", "; ".join(ways)


def _limits(settings: Settings, source: Source) -> Graded:
    used = [
        *(("reports", "media") if settings.uses_reports else ()),
        *(("metadata", "download") if settings.uses_interactions else ()),
        "auth",
    ]
    rates = {name: ",".join(f"{rate.limit}/{rate.seconds:g}" for rate in settings.limits[name]) for name in used}
    limits = ", ".join(f"{name} {rate or 'none'}" for name, rate in rates.items())
    pauses = source.try_limiter()
    if pauses:
        asked = ", ".join(f"{name} of account {account or 'any'} for {left:.0f} s" for name, account, left in pauses)
        return "warning", f"{limits}. The source asked for a pause, so requests wait: {asked}"
    return "ok", f"{limits} (requests/seconds for each account); requests can be counted"


def _summary(grades: Counter[str]) -> str:
    warnings = number(grades["warning"], "warning")
    if grades["failed"]:
        failures = number(grades["failed"], "failure")
        return f"{failures}, {warnings}: fix what failed from the top down, and check again before the first run."
    untried = f", {grades['not tried']} not tried" if grades["not tried"] else ""
    return f"No failure, {warnings}{untried}: you can run a first date."

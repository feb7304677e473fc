"""What assets and sensors work with: one plain object, built from the settings, whose parts are made when first used.

The Dagster resource has no configuration, so that no secret can stand in a run's config or snapshot: settings are
read from the environment when a run starts. Each client is built once and shared by all threads of the run.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import httpx
from dagster import InitResourceContext, ResourceDefinition

from pipelines import storage
from pipelines.archive.bucket import Bucket
from pipelines.archive.client import S3Options, make_s3_client
from pipelines.archive.proof.signature import Signer, Verifier
from pipelines.calendar import local_day, utc_now
from pipelines.events.files import Events, events_at
from pipelines.ledger.files import Files
from pipelines.ledger.parts import LedgerParts
from pipelines.ledger.states import RetryRules
from pipelines.ledger.store import Ledger
from pipelines.orchestration import priority
from pipelines.ringcx.auth import ApiToken, LegacyPassword, RingCentralJwt
from pipelines.ringcx.http.client import SourceClient, origin_of
from pipelines.ringcx.limits.limiter import Rate, RateLimiter
from pipelines.ringcx.links import HostList
from pipelines.ringcx.media import MediaClient
from pipelines.ringcx.reports.interactions import DOWNLOAD_LIMIT, SegmentLinks
from pipelines.settings import NO_LOG_IN, Settings, SettingsError, load
from pipelines.steps.fetch.attempt import Attempt, Recorders
from pipelines.steps.link.register_links import AllowedLinks
from pipelines.steps.pull.reports import ReportSource
from pipelines.steps.pull.windows import InteractionSource

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@lru_cache(maxsize=2)
def _client_of_process(
    max_connections: int, options: S3Options, _variables: tuple[tuple[str, str], ...], _hour: int
) -> "S3Client":
    """Return one client for all ticks and runs of a process: building one costs 0.2 s of CPU, and a sensor ticks every
    minute. Rebuilt when a variable changes, and every hour, so that changed credentials files are read.
    """
    return make_s3_client(max_connections=max_connections, options=options)


def _aws_variables() -> tuple[tuple[str, str], ...]:
    names = (name for name in os.environ if name.startswith("AWS_") or name.lower().endswith(("_proxy", "_ca_bundle")))
    return tuple(sorted((name, os.environ[name]) for name in names))


@dataclass
class Services:
    """The parts of one run. `stop` ends waits and transfers of all threads at once.

    `load_settings` is called when a part is first used: its SettingsError then ends that step, with its sentence.
    `backoff_s` is the source client's: what its waits between tries begin with. `s3_client` is used where there is one
    already, since building it takes a quarter of a second of CPU. `day` is the run's date, which decides how urgent its
    requests are; without one they go first.
    """

    load_settings: Callable[[], Settings]
    clock: Callable[[], datetime] = utc_now
    backoff_s: float = 1.0
    s3_client: "S3Client | None" = None
    day: date | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    _closing: ExitStack = field(default_factory=ExitStack, repr=False)

    def close(self) -> None:
        """End waits and close connections; the object is not used after it."""
        self.stop.set()
        self._closing.close()

    @cached_property
    def settings(self) -> Settings:
        """The settings of the environment in which the run started."""
        return self.load_settings()

    @cached_property
    def s3(self) -> "S3Client":
        """The one S3 client."""
        if self.s3_client is None:
            connections, hour = 2 * self.settings.archive_concurrency, int(time.monotonic() // 3600)
            self.s3_client = _client_of_process(connections, self.settings.s3_options, _aws_variables(), hour)
        return self.s3_client

    @cached_property
    def ledger(self) -> Ledger:
        """The memory of rows and states."""
        return Ledger(self._ledger_files, clock=self.clock)

    @cached_property
    def ledger_parts(self) -> LedgerParts:
        """The same, as the files it is made of."""
        return LedgerParts(self._ledger_files)

    @cached_property
    def _ledger_files(self) -> Files:
        return storage.ledger_files(self.settings, self.s3)

    @cached_property
    def events(self) -> Events | None:
        """What the receiver of End Call Events stored; None when no EVENTS_URL is set."""
        where = self.settings.events_url
        return None if where is None else events_at(where, lambda: self.s3)

    @cached_property
    def signer(self) -> Signer | None:
        """What signs manifests; None when no key is set."""
        return storage.signer(self.settings)

    @cached_property
    def verifier(self) -> Verifier | None:
        """What proves signatures; None when no key is set."""
        return storage.verifier(self.settings)

    @cached_property
    def bucket(self) -> Bucket:
        """The archive."""
        known = self.settings
        return Bucket(self.s3, known.archive_bucket, known.archive_prefix, storage_class=known.archive_storage_class)

    @cached_property
    def hosts(self) -> HostList:
        """The hosts that links may lead to."""
        return HostList(self.settings.ringcx_media_hosts)

    @cached_property
    def rules(self) -> RetryRules:
        """When to come back for a recording, and when to give it up."""
        known = self.settings
        return RetryRules(
            known.archive_retry_minutes,
            give_up=timedelta(days=known.archive_give_up_days),
            final_after=timedelta(hours=known.archive_final_after_hours),
            kept_for=timedelta(days=known.ringcx_retention_days),
        )

    @cached_property
    def reports(self) -> ReportSource:
        """Where reports come from."""
        return ReportSource(self._client, self.settings.ringcx_api_url, self._api_auth)

    @cached_property
    def interactions(self) -> InteractionSource:
        """Where interaction metadata comes from.

        Raises:
            SettingsError: the RingCentral account is not set.
        """
        account = self.settings.ringcx_rc_account_id
        if account is None:
            raise SettingsError("RINGCX_RC_ACCOUNT_ID is not set: the current API needs the RingCentral account id")
        return InteractionSource(
            self._client,
            self.settings.current_url,
            account,
            self._current_auth,
            self.settings.ringcx_metadata_version,
        )

    @cached_property
    def allowed(self) -> AllowedLinks:
        """Which links may be requested; the current API's also under RINGCX_SOURCE=legacy, as some may be pending."""
        account = self.settings.ringcx_rc_account_id
        return AllowedLinks(self.hosts, SegmentLinks(self.settings.current_url, account) if account else None)

    @cached_property
    def recorders(self) -> Recorders:
        """Where recordings come from."""
        auth = self._current_auth if self.allowed.segments is not None else None
        return Recorders(self.allowed, self.media, self._downloads(auth))

    @cached_property
    def attempt(self) -> Attempt:
        """What fetches one recording into the archive."""
        quarantine_bytes = self.settings.archive_quarantine_max_mb << 20
        return Attempt(self.bucket, self.recorders, self.stop, self.rules, self.clock, quarantine_bytes)

    @cached_property
    def anonymous_recorders(self) -> Recorders:
        """The same without any log-in: what they give, they give to everybody."""
        return Recorders(self.allowed, MediaClient(self._client, self.hosts, auth=None), self._downloads(None))

    def _downloads(self, auth: httpx.Auth | None) -> MediaClient | None:
        segments = self.allowed.segments
        if segments is None:
            return None
        scheme, host, port = segments.origin
        # Redirects may also lead to the hosts of the reports' links; the token goes to the API alone.
        ours = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return MediaClient(
            self._client,
            HostList((ours, *self.settings.ringcx_media_hosts)),
            auth=auth,
            method=self.settings.ringcx_download_method,
            limit=DOWNLOAD_LIMIT,
            ours=(scheme, host, port),
        )

    @cached_property
    def media(self) -> MediaClient:
        """Where the recordings of the reports' links come from."""
        user, password = self.settings.ringcx_media_username, self.settings.ringcx_media_password
        auth = httpx.BasicAuth(user.get_secret_value(), password.get_secret_value()) if user and password else None
        return MediaClient(self._client, self.hosts, auth=auth)

    def try_limiter(self) -> list[tuple[str, str, float]]:
        """Take a permit that is nobody's, to see that the place where requests are counted can be used.

        Returns the silences that the source asked for and that last now: limit, account, seconds left.

        Raises:
            LimiterBroken: it cannot.
        """
        self._limiter.acquire("connection_check", "", (Rate(1000, 1.0),))
        return self._limiter.silences()

    @cached_property
    def _limiter(self) -> RateLimiter:
        limiter = RateLimiter(self.settings.rate_limit_store)
        self._closing.callback(limiter.close)
        return limiter

    @cached_property
    def _client(self) -> SourceClient:
        known = self.settings
        return self._closing.enter_context(
            SourceClient(
                limiter=self._limiter,
                limits=known.limits,
                priority=priority.of_requests(self.day, local_day(self.clock(), known.zone), known),
                stop=self.stop,
                backoff_s=self.backoff_s,
                max_connections=2 * known.archive_concurrency,
            )
        )

    @cached_property
    def _api_auth(self) -> httpx.Auth:
        """The log-in to the reports."""
        return self._log_in(self.settings.ringcx_api_url, legacy=self.settings.has_legacy_log_in)

    @cached_property
    def _current_auth(self) -> httpx.Auth:
        """The log-in to the current API, which wants RingCentral's own where there is one."""
        known = self.settings
        legacy = known.has_legacy_log_in and not known.jwt_log_in
        same_place = origin_of(known.current_url) == origin_of(known.ringcx_api_url)
        if same_place and legacy == known.has_legacy_log_in:
            return self._api_auth  # one token for both, and one log-in for it
        return self._log_in(known.current_url, legacy=legacy)

    def _log_in(self, api_url: str, *, legacy: bool) -> httpx.Auth:
        known = self.settings
        if not legacy and known.jwt_log_in:
            client_id, secret, jwt = (one.get_secret_value() for one in known.jwt_log_in)
            return RingCentralJwt(
                client=self._client,
                api_url=api_url,
                ringcentral_url=known.ringcentral_url,
                auth_url=known.ringcx_auth_url,
                client_id=client_id,
                client_secret=secret,
                jwt=jwt,
            )
        if known.ringcx_api_token:
            return ApiToken(api_url=api_url, token=known.ringcx_api_token.get_secret_value())
        if not (known.ringcx_username and known.ringcx_password):
            raise SettingsError(NO_LOG_IN)
        user, password = known.ringcx_username.get_secret_value(), known.ringcx_password.get_secret_value()
        return LegacyPassword(client=self._client, api_url=api_url, username=user, password=password)


def services_resource(
    *,
    clock: Callable[[], datetime] = utc_now,
    backoff_s: float = Services.backoff_s,
    s3_client: "S3Client | None" = None,
) -> ResourceDefinition:
    """The services of the environment's settings, closed when the run or the tick ends; arguments as in `Services`."""

    def make(context: InitResourceContext) -> Iterator[Services]:
        day = priority.day_of(context.run.tags) if context.run else None
        services = Services(lambda: load(Settings), clock=clock, backoff_s=backoff_s, s3_client=s3_client, day=day)
        try:
            yield services
        finally:
            services.close()

    return ResourceDefinition(
        contextmanager(make), description="Source, ledger and archive, from the environment (.env.example)."
    )

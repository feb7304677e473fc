"""RingCX for a run: one HTTP client, one request budget and one log-in for all threads. No Dagster here."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property

import httpx

from pipelines.archive.bucket import Bucket
from pipelines.calendar import local_day
from pipelines.events.files import Events, events_at
from pipelines.orchestration import priority
from pipelines.orchestration.environment import Environment
from pipelines.ringcx.auth import ApiToken, LegacyPassword, OriginAuth, RingCentralJwt
from pipelines.ringcx.http.client import SourceClient, origin_of
from pipelines.ringcx.limits.limiter import Rate, RateLimiter
from pipelines.ringcx.links import HostList, SegmentLinks
from pipelines.ringcx.media import MediaClient
from pipelines.ringcx.reports.requests import InteractionSource, ReportSource
from pipelines.settings import NO_LOG_IN, Settings, SettingsError
from pipelines.steps.fetch.attempt import Attempt, RecordingClients
from pipelines.steps.fetch.outcomes import RetryRules
from pipelines.steps.link.allowed_links import AllowedLinks


@dataclass
class Source:
    """The parts of RingCX, each made on first use. `stop` ends the waits and transfers of all threads.

    `notify` takes a sentence about a long wait; `day` decides how urgent the requests are: without one they go first.
    """

    environment: Environment
    notify: Callable[[str], None]
    day: date | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    _closing: ExitStack = field(default_factory=ExitStack, repr=False)

    def close(self) -> None:
        """End waits and close connections; do not use the object afterwards."""
        self.stop.set()
        self._closing.close()

    @property
    def _settings(self) -> Settings:
        return self.environment.settings

    @cached_property
    def reports(self) -> ReportSource:
        """The legacy reports."""
        return ReportSource(self._client, self._settings.ringcx_api_url, self._api_auth)

    @cached_property
    def interactions(self) -> InteractionSource:
        """The interaction metadata of the current API; raises SettingsError without the RingCentral account."""
        account = self._settings.ringcx_rc_account_id
        if account is None:
            raise SettingsError("RINGCX_RC_ACCOUNT_ID is not set: the current API needs the RingCentral account id")
        url, version = self._settings.current_url, self._settings.ringcx_metadata_version
        return InteractionSource(self._client, url, self._current_auth, account, version)

    @cached_property
    def events(self) -> Events:
        """The End Call Events that the receiver stored; raises SettingsError without EVENTS_URL."""
        url = self._settings.events_url
        if url is None:
            raise SettingsError("EVENTS_URL is not set: name the folder or bucket in which the receiver stores events")
        return events_at(url, lambda: self.environment.s3)

    @cached_property
    def allowed(self) -> AllowedLinks:
        """The links that may be requested, even the current API's if RINGCX_SOURCE=legacy: some may be pending."""
        account = self._settings.ringcx_rc_account_id
        segments = SegmentLinks(self._settings.current_url, account) if account else None
        return AllowedLinks(HostList(self._settings.ringcx_media_hosts), segments)

    @cached_property
    def recording_clients(self) -> RecordingClients:
        """The clients that fetch recordings with the log-in."""
        user, password = self._settings.ringcx_media_username, self._settings.ringcx_media_password
        link_auth = httpx.BasicAuth(user.get_secret_value(), password.get_secret_value()) if user and password else None
        segment_auth = self._current_auth if self.allowed.segments else None
        return self._clients_with(link_auth, segment_auth)

    @cached_property
    def anonymous_recording_clients(self) -> RecordingClients:
        """The clients without any log-in: anyone can fetch what these can."""
        return self._clients_with(None, None)

    def _clients_with(self, link_auth: httpx.Auth | None, segment_auth: httpx.Auth | None) -> RecordingClients:
        links = MediaClient(self._client, self.allowed.hosts, auth=link_auth)
        segments = self.allowed.segments
        if segments is None:
            return RecordingClients(self.allowed, links, None)
        scheme, host, port = origin_of(segments.base_url)
        # Redirects may also lead to the hosts of the reports' links; the token goes to the API alone.
        api = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        downloads = MediaClient(
            self._client,
            HostList((api, *self._settings.ringcx_media_hosts)),
            auth=segment_auth,
            method=self._settings.ringcx_download_method,
            limit="download",
            ours=(scheme, host, port),
        )
        return RecordingClients(self.allowed, links, downloads)

    def attempt(self, bucket: Bucket) -> Attempt:
        """Return the object that fetches one recording into `bucket`."""
        settings = self._settings
        rules = RetryRules(
            settings.archive_retry_minutes,
            give_up=timedelta(days=settings.archive_give_up_days),
            final_after=timedelta(hours=settings.archive_final_after_hours),
            kept_for=timedelta(days=settings.ringcx_retention_days),
        )
        quarantine_bytes = settings.archive_quarantine_max_mb << 20
        return Attempt(bucket, self.recording_clients, self.stop, rules, self.environment.clock, quarantine_bytes)

    def try_limiter(self) -> list[tuple[str, str, float]]:
        """Take a permit of no account, or raise LimiterBroken; return the pauses: limit, account, seconds left."""
        self._limiter.acquire("connection_check", "", (Rate(1000, 1.0),))
        return self._limiter.pauses()

    @cached_property
    def _limiter(self) -> RateLimiter:
        limiter = RateLimiter(self._settings.rate_limit_store, notify=self.notify)
        self._closing.callback(limiter.close)
        return limiter

    @cached_property
    def _client(self) -> SourceClient:
        settings = self._settings
        today = local_day(self.environment.clock(), settings.zone)
        return self._closing.enter_context(
            SourceClient(
                limiter=self._limiter,
                limits=settings.limits,
                priority=priority.of_requests(self.day, today, settings),
                stop=self.stop,
                backoff_s=self.environment.backoff_s,
                max_connections=2 * settings.archive_concurrency,
            )
        )

    @cached_property
    def _api_auth(self) -> OriginAuth:
        return self._log_in(self._settings.ringcx_api_url, legacy=self._settings.has_legacy_log_in)

    @cached_property
    def _current_auth(self) -> OriginAuth:
        """The log-in for the current API: RingCentral's own, if it is set."""
        settings = self._settings
        legacy = settings.jwt_log_in is None
        same_origin = origin_of(settings.current_url) == origin_of(settings.ringcx_api_url)
        if same_origin and legacy == settings.has_legacy_log_in:
            return self._api_auth  # one token for both, and one log-in for it
        return self._log_in(settings.current_url, legacy=legacy)

    def _log_in(self, api_url: str, *, legacy: bool) -> OriginAuth:
        settings = self._settings
        if not legacy and settings.jwt_log_in:
            client_id, secret, jwt = (secret.get_secret_value() for secret in settings.jwt_log_in)
            return RingCentralJwt(
                client=self._client,
                api_url=api_url,
                ringcentral_url=settings.ringcentral_url,
                auth_url=settings.ringcx_auth_url,
                client_id=client_id,
                client_secret=secret,
                jwt=jwt,
            )
        if settings.ringcx_api_token:
            return ApiToken(api_url=api_url, token=settings.ringcx_api_token.get_secret_value())
        if not (settings.ringcx_username and settings.ringcx_password):
            raise SettingsError(NO_LOG_IN)
        user, password = settings.ringcx_username.get_secret_value(), settings.ringcx_password.get_secret_value()
        return LegacyPassword(client=self._client, api_url=api_url, username=user, password=password)

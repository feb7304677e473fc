"""Every environment variable of the product: name, default, valid values, and the sentence for a wrong one.

`Calendar` holds what the asset graph needs (no secret), so that definitions load without credentials.
"""

import json
import logging
import os
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import date
from difflib import get_close_matches
from functools import cache
from io import StringIO
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, available_timezones

from dotenv import dotenv_values
from dotenv.main import DotEnv
from dotenv.parser import parse_stream
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from pipelines.archive.client import AddressingStyle, S3Options
from pipelines.aws import ACCESS_POINT
from pipelines.errors import ExpectedError
from pipelines.ringcx.auth import is_secure
from pipelines.ringcx.limits.limiter import Rate, is_database, parse_rates
from pipelines.ringcx.links import HostList
from pipelines.ringcx.media import Method
from pipelines.ringcx.reports.columns import CURRENT, LEGACY, ReportName

ENV_FILE = Path(".env")
_PREFIXES = ("ARCHIVE_", "RINGCX_", "RINGCENTRAL_", "EVENTS_", "LEDGER_", "ALERT_", "PLAN_", "RATE_LIMIT_", "BROWSE_")
# The variables whose value in the environment differs from `.env`, as JSON.
_OVERRIDDEN = "_RINGCX_ARCHIVE_ENVIRONMENT"
_log = logging.getLogger(__name__)
_reported: set[str] = set()

_HINTS: Mapping[str, str] = {
    "ringcx_account_ids": "list the RingCX sub-account ids, separated by commas",
    "archive_bucket": "name the S3 bucket that keeps the recordings",
    "browse_auth": "choose who may sign in: password, proxy, oidc, or open for everybody who can reach the page",
    "archive_start_date": (
        "give the first date to archive. A new archive begins on the first date that RingCX still keeps "
        "(RINGCX_RETENTION_DAYS); one that has run without this setting keeps 2020-01-01"
    ),
}
NO_LOG_IN = (
    "no complete log-in is set: give RINGCENTRAL_CLIENT_ID, RINGCENTRAL_CLIENT_SECRET and RINGCENTRAL_JWT, "
    "or RINGCX_API_TOKEN, or RINGCX_USERNAME and RINGCX_PASSWORD"
)


class SettingsError(ExpectedError):
    """A setting is missing or wrong. The text names each variable and the remedy, and never shows a value."""


def _valid(accepts: Callable[[Any], object], sentence: str) -> AfterValidator:
    """Return a validator that rejects a value with `sentence` if `accepts` raises ValueError or returns nothing."""

    def check(value: object) -> object:
        try:
            accepted = accepts(value)
        except ValueError:
            accepted = None
        if not accepted:
            raise ValueError(sentence)
        return value

    return AfterValidator(check)


def _matching(pattern: str, sentence: str) -> AfterValidator:
    return _valid(re.compile(pattern).fullmatch, sentence)


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _limit_store(url: SecretStr) -> SecretStr:
    is_database(url.get_secret_value())
    return url


def _location(url: str) -> str:
    """Accept a folder or an address in S3; expand `~`, since no shell does that in a file of settings."""
    if re.match(r"s3://[^/]", url):
        return url
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url):
        raise ValueError("must be a folder or s3://<bucket>/<prefix>")
    return str(_expanded(Path(url)))


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("begins with ~, but the home folder is unknown; write the full path") from None


@cache
def _regions() -> frozenset[str]:
    from phonenumbers import SUPPORTED_REGIONS  # noqa: PLC0415 - takes 0.1 s, and few commands need it

    return frozenset(SUPPORTED_REGIONS)


_zones = cache(available_timezones)  # walks the zones' folders, tens of milliseconds each time
_without_slash = AfterValidator(lambda url: url.rstrip("/"))

Texts = Annotated[tuple[str, ...], BeforeValidator(_split)]
Amount = Annotated[float, Field(ge=0, le=1_000_000)]
Minutes = Annotated[tuple[Amount, ...], BeforeValidator(_split), Field(min_length=1)]
Rates = Annotated[
    tuple[Rate, ...], BeforeValidator(lambda value: parse_rates(value) if isinstance(value, str) else value)
]
SourceName = Literal["legacy", "current", "both"]
Location = Annotated[str, AfterValidator(_location)]
LocalPath = Annotated[Path, AfterValidator(_expanded)]
Prefix = Annotated[str, AfterValidator(lambda text: f"{text.strip('/')}/".lstrip("/"))]
Zone = Annotated[
    str, _valid(lambda name: name in _zones(), "is not an IANA time zone; write it like Europe/Berlin or US/Arizona")
]
AccountId = Annotated[str, _valid(str.isalnum, "has something that is not an account id; ids are letters and digits")]
AccountIds = Annotated[
    tuple[AccountId, ...],
    BeforeValidator(_split),
    _valid(len, "names no account"),
    AfterValidator(lambda ids: tuple(dict.fromkeys(ids))),
]
Hosts = Annotated[Texts, _valid(HostList, "must be hosts, host:port or *.domain, separated by commas")]
Url = Annotated[str, _valid(is_secure, "must be an https address without credentials in it"), _without_slash]
PageUrl = Annotated[
    str,
    _matching(
        r"https?://[^@]*", "must be an http or https address without credentials, as http://archive.example.com:3000"
    ),
    _without_slash,
]
BrowseUrl = Annotated[
    str,
    _matching(
        r"https?://[A-Za-z0-9.-]+(:\d+)?/?|https?://\[[0-9A-Fa-f:]+\](:\d+)?/?",
        "must be the address at which people reach the page, without a path: https://calls.example.com",
    ),
    _without_slash,
]
Region = Annotated[
    str,
    _valid(lambda code: code in _regions(), "is not a country code of two capital letters; write it like US or GB"),
]
Owner = Annotated[str, _matching(r"team:\S+|[^\s@]+@[^\s@]+\.[^\s@]+", "must be an e-mail address or team:<name>")]
HeaderName = Annotated[
    str, _matching(r"[A-Za-z0-9-]{1,64}", "is not a header name; write it like Authorization or X-Events-Key")
]
HeaderSecret = Annotated[
    SecretStr,
    _valid(lambda text: re.fullmatch(r"\S(.*\S)?", text.get_secret_value()), "must have no line break or outer blank"),
]
BucketName = Annotated[
    str,
    _valid(
        lambda name: ACCESS_POINT.fullmatch(name) or re.fullmatch(r"[A-Za-z0-9._-]{3,255}", name),
        "must be only the name, such as my-recordings, or the ARN of an access point; put the prefix of the keys into "
        "ARCHIVE_PREFIX, and the address of a server into AWS_ENDPOINT_URL_S3",
    ),
]


class Calendar(BaseModel):
    """The settings that decide which dates and assets exist. Holds no secret and needs no variable."""

    model_config = ConfigDict(extra="ignore", frozen=True, validate_default=True)

    archive_timezone: Zone = "UTC"
    archive_start_date: date = date(2020, 1, 1)
    archive_look_back_days: Annotated[int, Field(ge=0, le=366)] = 3
    archive_owner: Owner | None = None
    archive_docs_url: PageUrl | None = None
    ringcx_source: SourceName = "legacy"
    events_url: Location | None = None
    events_timezone: Zone = "US/Eastern"

    @property
    def events_zone(self) -> ZoneInfo:
        """The time zone of `call_start` in End Call Events."""
        return ZoneInfo(self.events_timezone)

    @property
    def zone(self) -> ZoneInfo:
        """The zone in which days begin and end."""
        return ZoneInfo(self.archive_timezone)

    @property
    def uses_reports(self) -> bool:
        """Whether the legacy reports are requested."""
        return self.ringcx_source in {"legacy", "both"}

    @property
    def uses_interactions(self) -> bool:
        """Whether interaction metadata is requested from the current API."""
        return self.ringcx_source in {"current", "both"}

    @property
    def reports(self) -> tuple[ReportName, ...]:
        """The requested reports, named like the assets."""
        return (*(LEGACY if self.uses_reports else ()), *(CURRENT if self.uses_interactions else ()))


class DagsterSettings(Calendar):
    """The settings of the definitions: with a first date that somebody chose (docs/decisions.md)."""

    archive_start_date: date


class S3Settings(Calendar):
    """The parameters added to every S3 request; credentials, region and endpoint are boto3's own variables."""

    archive_kms_key_id: str | None = None
    archive_expected_bucket_owner: Annotated[str, Field(pattern=r"^[0-9]{12}$")] | None = None
    archive_request_payer: Literal["requester"] | None = None
    archive_addressing_style: AddressingStyle | None = None

    @property
    def s3_options(self) -> S3Options:
        """The same parameters, for the client."""
        return S3Options(
            self.archive_kms_key_id,
            self.archive_expected_bucket_owner,
            self.archive_request_payer,
            self.archive_addressing_style,
        )


class AlertSettings(Calendar):
    """The addresses that alerts go to. Loaded separately, so that alerts arrive even if other settings are wrong."""

    alert_urls: SecretStr | None = None
    alert_ui_url: PageUrl | None = None


class ReceiverSettings(S3Settings):
    """The settings of the receiver of End Call Events. It needs no bucket, account or log-in to the source."""

    events_username: HeaderSecret | None = None
    events_password: HeaderSecret | None = None
    events_password_next: HeaderSecret | None = None
    events_header_name: HeaderName = "Authorization"
    events_header_value: HeaderSecret | None = None
    events_header_value_next: HeaderSecret | None = None
    events_allow_anyone: bool = False
    events_host: str = "127.0.0.1"
    events_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    events_rate: Annotated[int, Field(ge=1)] = 1000
    events_max_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 65536
    events_max_connections: Annotated[int, Field(ge=1, le=10000)] = 1000
    events_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 10

    @property
    def header_values(self) -> tuple[str, ...]:
        """The accepted values of the header: one, two while the secret is being changed, none to accept any sender."""
        if self.events_username:
            user = self.events_username.get_secret_value()
            passwords = filter(None, (self.events_password, self.events_password_next))
            pairs = (f"{user}:{password.get_secret_value()}" for password in passwords)
            return tuple(f"Basic {b64encode(pair.encode()).decode()}" for pair in pairs)
        values = filter(None, (self.events_header_value, self.events_header_value_next))
        return tuple(value.get_secret_value() for value in values)

    @model_validator(mode="after")
    def _receiver_is_consistent(self) -> Self:
        if not self.events_url:
            raise ValueError("EVENTS_URL is not set: name the folder or s3://<bucket>/<prefix> that keeps the events")
        header_values = self.events_header_value or self.events_header_value_next
        if bool(self.events_username) != bool(self.events_password or self.events_password_next):
            raise ValueError("EVENTS_USERNAME and EVENTS_PASSWORD belong together: set both or neither")
        if self.events_username and (header_values or self.events_header_name != "Authorization"):
            raise ValueError("EVENTS_USERNAME and EVENTS_HEADER_VALUE are both set: keep one of them")
        if not self.events_allow_anyone and not (self.events_username or self.events_header_value):
            raise ValueError(
                "no secret is set, so anybody could send events: give EVENTS_USERNAME and EVENTS_PASSWORD, or "
                "EVENTS_HEADER_NAME and EVENTS_HEADER_VALUE; or accept this with EVENTS_ALLOW_ANYONE=true"
            )
        return self


class StorageSettings(S3Settings):
    """The settings for reading and proving the archive, without any log-in to the source."""

    archive_bucket: BucketName
    archive_prefix: Prefix = ""
    ledger_url: Location | None = None
    archive_storage_class: Annotated[str, Field(pattern=r"^[A-Z0-9_]+$")] | None = None
    archive_concurrency: Annotated[int, Field(ge=1, le=64)] = 16
    archive_signing_key_file: LocalPath | None = None
    archive_signing_kms_key: str | None = None
    archive_verify_key_file: LocalPath | None = None
    archive_drill_recordings: Annotated[int, Field(ge=1)] = 200
    archive_phone_region: Region = "US"

    @property
    def ledger(self) -> str:
        """The ledger's location: an `s3://` prefix or a local folder."""
        return self.ledger_url or f"s3://{self.archive_bucket}/{self.archive_prefix}ledger"

    @model_validator(mode="after")
    def _storage_is_consistent(self) -> Self:
        if self.archive_signing_key_file and self.archive_signing_kms_key:
            raise ValueError("ARCHIVE_SIGNING_KEY_FILE and ARCHIVE_SIGNING_KMS_KEY are both set: keep one of them")
        return self


BrowseAuth = Literal["password", "proxy", "oidc", "open"]
Networks = Annotated[
    Texts, _valid(lambda names: [ip_network(name) for name in names] or True, "must be addresses or networks (CIDR)")
]


class BrowseSettings(StorageSettings):
    """The settings of the page on which people find calls, which needs no account and no log-in to the source."""

    browse_auth: BrowseAuth
    browse_access_file: LocalPath | None = None
    browse_url: BrowseUrl | None = None
    browse_host: str = "127.0.0.1"
    browse_port: Annotated[int, Field(ge=0, le=65535)] = 8090
    browse_secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    browse_session_hours: Annotated[float, Field(gt=0, le=168)] = 8
    browse_rate: Annotated[int, Field(ge=1)] = 120
    browse_proxy_user_header: HeaderName = "X-Forwarded-User"
    browse_proxy_groups_header: HeaderName = "X-Forwarded-Groups"
    browse_proxy_secret_header: HeaderName = "X-Browse-Secret"  # noqa: S105 - its name, not its value
    browse_proxy_secret: Annotated[SecretStr, Field(min_length=16)] | None = None
    browse_proxy_addresses: Networks = ()
    browse_oidc_issuer: Annotated[str, Field(pattern=r"^https://|^http://(127\.0\.0\.1|localhost)[:/]")] | None = None
    browse_oidc_client_id: str | None = None
    browse_oidc_client_secret: SecretStr | None = None
    browse_oidc_scope: str = "openid email profile"
    browse_oidc_user_claim: str = "email"
    browse_oidc_groups_claim: str = "groups"

    @property
    def browse_origin(self) -> str:
        """The origin at which people reach the page: scheme, host and port."""
        host = f"[{self.browse_host}]" if ":" in self.browse_host else self.browse_host
        return self.browse_url or f"http://{host}:{self.browse_port}"

    @model_validator(mode="after")
    def _browse_is_consistent(self) -> Self:
        if self.browse_auth != "open" and not self.browse_access_file:
            raise ValueError("BROWSE_ACCESS_FILE is not set: name the file that grants rights (docs/browse.md)")
        if self.browse_auth == "oidc" and not (
            self.browse_oidc_issuer and self.browse_oidc_client_id and self.browse_oidc_client_secret
        ):
            raise ValueError(
                "BROWSE_AUTH=oidc needs BROWSE_OIDC_ISSUER, BROWSE_OIDC_CLIENT_ID and BROWSE_OIDC_CLIENT_SECRET: set "
                "all three"
            )
        if self.browse_auth == "proxy" and not (self.browse_proxy_secret or self.browse_proxy_addresses):
            raise ValueError(
                "BROWSE_AUTH=proxy trusts headers, so it must know who sends them: set BROWSE_PROXY_SECRET, or "
                "BROWSE_PROXY_ADDRESSES"
            )
        if self.browse_host not in {"127.0.0.1", "::1", "localhost"} and not self.browse_url:
            raise ValueError(
                "BROWSE_URL is not set: give the address at which people reach the page, as https://calls.example.com"
            )
        return self


class VerifySettings(StorageSettings):
    """The settings of `verify`, `status` and `metrics`. With account ids, each account's reports are required."""

    ringcx_account_ids: Texts = ()
    ringcx_retention_days: Annotated[int, Field(ge=1)] = 90
    archive_give_up_days: Amount = 7
    rate_limit_url: Annotated[SecretStr, AfterValidator(_limit_store)] | None = None
    data_dir: LocalPath = Path("data")

    @property
    def rate_limit_store(self) -> Path | str:
        """The store of the shared request budget: a SQLite file, or a database, whose address is a secret."""
        if self.rate_limit_url is None:
            return self.data_dir / "rate_limits.sqlite"
        return self.rate_limit_url.get_secret_value()


class PlanSettings(VerifySettings):
    """The settings of `plan` and `accept`: what is requested, how often, and what storage costs; no log-in."""

    ringcx_account_ids: AccountIds
    ringcx_limit_reports: Rates = (Rate(2, 60),)
    ringcx_limit_metadata: Rates = (Rate(3, 60), Rate(9, 900))
    ringcx_limit_media: Rates | None = None
    ringcx_limit_auth: Rates = (Rate(5, 60),)
    ringcx_metadata_window: Annotated[int, Field(ge=60, le=10800)] = 10800
    ringcx_metadata_version: Literal["v1", "v2"] = "v1"
    ringcx_retention_margin_days: Annotated[int, Field(ge=0)] = 14
    plan_price_put_per_1000: Amount = 0.005
    plan_price_gb_month: Amount = 0.023
    plan_currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"

    @property
    def limits(self) -> dict[str, tuple[Rate, ...]]:
        """The rates of each limit by name. `media`: links of the legacy reports; `download`: the current API."""
        media = self.ringcx_limit_media
        return {
            "reports": self.ringcx_limit_reports,
            "metadata": self.ringcx_limit_metadata,
            "media": () if media is None else media,
            "download": (Rate(120, 60),) if media is None else media,
            "auth": self.ringcx_limit_auth,
        }

    @model_validator(mode="after")
    def _margin_is_shorter(self) -> Self:
        if self.ringcx_retention_margin_days >= self.ringcx_retention_days:
            raise ValueError("RINGCX_RETENTION_MARGIN_DAYS must be less than RINGCX_RETENTION_DAYS")
        return self


class Settings(PlanSettings, AlertSettings):
    """All settings, by their variable's name in lower case. Secrets are `SecretStr`: no repr shows them."""

    ringcx_api_url: Url = "https://ringcx.ringcentral.com/voice/api"
    ringcx_auth_url: Url = "https://ringcx.ringcentral.com"
    ringcx_rc_account_id: AccountId | None = None
    ringcx_current_url: Url | None = None
    ringcx_download_method: Method = "GET"
    ringcentral_url: Url = "https://platform.ringcentral.com"
    ringcentral_client_id: SecretStr | None = None
    ringcentral_client_secret: SecretStr | None = None
    ringcentral_jwt: SecretStr | None = None
    ringcx_api_token: SecretStr | None = None
    ringcx_username: SecretStr | None = None
    ringcx_password: SecretStr | None = None
    ringcx_media_username: SecretStr | None = None
    ringcx_media_password: SecretStr | None = None
    ringcx_media_hosts: Hosts = ("*.virtualacd.biz", "*.vacd.biz")
    archive_final_after_hours: Amount = 24
    archive_quarantine_max_mb: Annotated[int, Field(ge=0)] = 64
    archive_retry_minutes: Minutes = (2, 5, 15, 60)
    browse_url: BrowseUrl | None = None

    @property
    def current_url(self) -> str:
        """The base address of the current API."""
        return self.ringcx_current_url or self.ringcx_api_url

    @property
    def has_legacy_log_in(self) -> bool:
        """Whether an API token, or a user name and password, are set."""
        return bool(self.ringcx_api_token or (self.ringcx_username and self.ringcx_password))

    @property
    def jwt_log_in(self) -> tuple[SecretStr, SecretStr, SecretStr] | None:
        """Client id, client secret and JWT of RingCentral; None unless all three are set."""
        if not (self.ringcentral_client_id and self.ringcentral_client_secret and self.ringcentral_jwt):
            return None
        return self.ringcentral_client_id, self.ringcentral_client_secret, self.ringcentral_jwt

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not (self.has_legacy_log_in or self.jwt_log_in):
            raise ValueError(NO_LOG_IN)
        if self.uses_interactions and not self.ringcx_rc_account_id:
            raise ValueError("RINGCX_RC_ACCOUNT_ID is not set: the current API needs the RingCentral account id")
        if bool(self.ringcx_media_username) != bool(self.ringcx_media_password):
            raise ValueError("RINGCX_MEDIA_USERNAME and RINGCX_MEDIA_PASSWORD belong together: set both or neither")
        return self


S = TypeVar("S", bound=Calendar)


def load(kind: type[S]) -> S:
    """Read the environment, and with lower priority the `.env` of the working folder, into `kind`; raise SettingsError
    with a sentence for each variable that is missing or wrong.
    """
    os.environ.update(json.loads(os.environ.get(_OVERRIDDEN, "{}")))
    # Into the environment rather than into pydantic alone: boto3 must see AWS_* of the same file.
    for name, value in env_file().items():
        os.environ.setdefault(name, value)
    _warn_of_unknown_variables()
    try:
        # A variable that is empty counts as not set.
        return kind.model_validate({name.lower(): value for name, value in os.environ.items() if value})
    except ValidationError as error:
        sentences = (_sentence(wrong["loc"], wrong["msg"], wrong["type"]) for wrong in error.errors())
        raise SettingsError("; ".join(dict.fromkeys(sentences))) from None


def environment_for_dagster() -> dict[str, str]:
    """Return the environment for a Dagster process and those that it starts. Each of Dagster's commands lets `.env`
    override the environment, so those values are passed in a variable as well, from which `load` restores them.
    """
    here = {**env_file(), **os.environ}
    # As Dagster reads it: in a value's ${NAME}, the file comes first.
    ours = {name: here[name] for name, value in dotenv_values(ENV_FILE).items() if here.get(name, value) != value}
    return {**os.environ, _OVERRIDDEN: json.dumps(ours)}


def env_file() -> dict[str, str]:
    """Return the variables of `.env` in the working folder, if it exists; raise SettingsError if a line cannot be read,
    or its name is nearly that of a setting.
    """
    if not ENV_FILE.is_file():
        return {}
    file, ours = ENV_FILE.resolve(), _names()
    _warn_of_readers(file)
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError(f"{file} is not UTF-8 text: save it as UTF-8") from None
    for line in parse_stream(StringIO(text)):
        if line.key is None and not line.error:  # a comment, or nothing
            continue
        whole = line.original.string
        where = f"{file}, line {line.original.line + whole[: len(whole) - len(whole.lstrip())].count(chr(10))}"
        if line.error or line.value is None:
            raise SettingsError(f"{where} cannot be read: write NAME=value, with both quotation marks or none")
        name = str(line.key).upper()
        if name not in ours and (near := get_close_matches(name, ours, n=1, cutoff=0.85)):
            raise SettingsError(f"{where} sets {name}, which is not a setting: correct it to {near[0]}, or remove it")
    # In a value's ${NAME}, too, the environment comes first.
    values = DotEnv(None, StringIO(text), override=False).dict()
    return {name: value for name, value in values.items() if value is not None}


@cache
def _names() -> list[str]:
    return sorted({name.upper() for kind in (Settings, ReceiverSettings, BrowseSettings) for name in kind.model_fields})


def _warn_of_unknown_variables() -> None:
    """Log, once in a process, each variable with one of our prefixes that nothing reads: probably a misspelling."""
    ours = _names()
    for name, value in os.environ.items():
        # Kubernetes sets <SERVICE>_PORT=tcp://… and the like for every service, and one may be called ringcx-archive.
        foreign = value.startswith(("tcp://", "udp://")) or re.search(r"_(SERVICE|TCP|UDP)(_|$)", name)
        if name.startswith(_PREFIXES) and name not in ours and name not in _reported and not foreign:
            _reported.add(name)
            near = get_close_matches(name, ours, n=1, cutoff=0.7)
            instead = f"did you mean {near[0]}?" if near else "see .env.example for the names that exist."
            _log.warning("%s is set, but RingCX Archive has no such setting: %s", name, instead)


@cache
def _warn_of_readers(file: Path) -> None:
    """Warn once in a process if others may read the secrets in the file."""
    if file.stat().st_mode & 0o077:
        _log.warning("%s can be read by other users, and it holds secrets: chmod 600 it.", file)


def _sentence(loc: tuple[int | str, ...], message: str, kind: str) -> str:
    said = message.removeprefix("Value error, ").replace("Input should", "must")
    if kind.startswith("date_"):
        said = "is not a date; write it like 2026-09-01"
    if not loc:
        return said
    name = str(loc[0])
    if kind == "missing":
        return f"{name.upper()} is not set: {_HINTS.get(name, 'set it')} (see .env.example)"
    return f"{name.upper()} {said[0].lower()}{said[1:]} (see .env.example)"

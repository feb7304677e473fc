"""Settings: what a person is told when one is missing or wrong, and what is never shown."""

from __future__ import annotations

import logging
import os
import re
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
from dagster import build_resources
from dagster._cli.utils import _inject_local_env_file

from pipelines import settings
from pipelines.aws import split_s3_url
from pipelines.orchestration.resources import all_resources
from pipelines.ringcx.limits.limiter import Rate
from pipelines.settings import BrowseSettings, Calendar, Settings, SettingsError, environment_for_dagster, load

ROOT = Path(__file__).parents[2]
GOOD = {
    "RINGCX_ACCOUNT_IDS": "15300002, 15300003",
    "ARCHIVE_BUCKET": "archive",
    "RINGCX_API_TOKEN": "aws80:secret-token",
}


def set_variables(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in (GOOD | variables).items():
        monkeypatch.setenv(name, value)


def test_defaults_are_those_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch)
    known = load(Settings)
    assert known.ringcx_account_ids == ("15300002", "15300003")
    assert known.ringcx_limit_reports == (Rate(2, 60),)
    assert known.limits["media"] == ()
    assert known.limits["download"] == (Rate(120, 60),)
    assert known.limits["metadata"] == (Rate(3, 60), Rate(9, 900))
    assert known.ledger == "s3://archive/ledger"
    assert known.archive_retry_minutes == (2, 5, 15, 60)
    assert known.archive_start_date == date(2020, 1, 1)


def test_the_example_file_lists_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    example = dict(re.findall(r"^([A-Z_0-9]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    for name in Settings.model_fields | BrowseSettings.model_fields:
        assert name.upper() in example
    set_variables(monkeypatch)
    plain = load(Settings)
    for name, value in example.items():
        if value:
            monkeypatch.setenv(name, value)
    assert load(Settings) == plain


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RINGCX_ACCOUNT_IDS", "15300002;DROP"),
        ("ARCHIVE_TIMEZONE", "Mars/Olympus"),
        ("RINGCX_LIMIT_REPORTS", "many"),
        ("ARCHIVE_RETRY_MINUTES", "2,soon"),
        ("ARCHIVE_RETRY_MINUTES", "2,-1"),
        ("ARCHIVE_RETRY_MINUTES", "nan"),
        ("ARCHIVE_GIVE_UP_DAYS", "inf"),
        ("ARCHIVE_CONCURRENCY", "0"),
        ("ARCHIVE_START_DATE", "yesterday"),
        ("RINGCX_API_URL", "http://ringcx.example.com"),
        ("RINGCX_API_URL", "https://user:pass@ringcx.example.com"),
        ("RINGCX_AUTH_URL", "ringcx.example.com"),
        ("RINGCENTRAL_URL", "https://h:port"),
        ("RINGCX_MEDIA_HOSTS", "https://a.example.com/path"),
        ("RINGCX_SOURCE", "newest"),
        ("RINGCX_METADATA_WINDOW", "10801"),
        ("LEDGER_URL", "ftp://somewhere"),
        ("LEDGER_URL", "file:///srv/ledger"),
        ("LEDGER_URL", "s3:bucket/ledger"),
        ("LEDGER_URL", "s3:///ledger"),
        ("LEDGER_URL", "~nobody-of-that-name/ledger"),
        ("EVENTS_URL", "https://example.com/events"),
        ("DATA_DIR", "~nobody-of-that-name/data"),
        ("RATE_LIMIT_URL", "mysql://u:p@host/db"),
        ("RINGCX_MEDIA_USERNAME", "only-a-user"),
        ("ARCHIVE_BUCKET", "s3://my-recordings"),
        ("ARCHIVE_BUCKET", "my-recordings/ringcx"),
        ("ARCHIVE_BUCKET", "https://my-recordings.s3.amazonaws.com"),
        ("ARCHIVE_BUCKET", "not a bucket!"),
        ("ARCHIVE_EXPECTED_BUCKET_OWNER", "somebody"),
        ("ARCHIVE_REQUEST_PAYER", "somebody"),
        ("ARCHIVE_ADDRESSING_STYLE", "sideways"),
        ("ARCHIVE_STORAGE_CLASS", "glacier deep"),
    ],
)
def test_a_wrong_value_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    set_variables(monkeypatch, **{name: value})
    with pytest.raises(SettingsError) as caught:
        load(Settings)
    assert name in str(caught.value)
    assert value not in str(caught.value)


@pytest.mark.parametrize("name", ["RINGCX_ACCOUNT_IDS", "ARCHIVE_BUCKET"])
def test_a_missing_variable_is_named_with_what_to_put_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    set_variables(monkeypatch)
    monkeypatch.setenv(name, "")
    with pytest.raises(SettingsError, match=f"{name} is not set: "):
        load(Settings)


def test_without_a_log_in_all_three_ways_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, RINGCX_API_TOKEN="", RINGCENTRAL_JWT="half.of.it")
    with pytest.raises(SettingsError, match=r"RINGCENTRAL_CLIENT_ID.*RINGCX_API_TOKEN.*RINGCX_USERNAME"):
        load(Settings)


def test_the_current_api_needs_the_ringcentral_account(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, RINGCX_SOURCE="both")
    with pytest.raises(SettingsError, match="RINGCX_RC_ACCOUNT_ID is not set"):
        load(Settings)


def test_no_repr_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(
        monkeypatch,
        RINGCX_MEDIA_USERNAME="media-user",
        RINGCX_MEDIA_PASSWORD="media-password",
        RATE_LIMIT_URL="postgresql://limiter:limiter-password@host/db",
    )
    shown = f"{load(Settings)!r} {load(Settings)}"
    for secret in ("secret-token", "media-user", "media-password", "limiter-password"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("value", "store"),
    [
        ("", Path("data/rate_limits.sqlite")),
        ("limits.sqlite", "limits.sqlite"),
        ("sqlite:////var/limits.sqlite", "sqlite:////var/limits.sqlite"),
        ("postgresql://u:p@host/db", "postgresql://u:p@host/db"),
    ],
)
def test_the_request_budget_lies_in_a_file_or_in_a_database(
    monkeypatch: pytest.MonkeyPatch, value: str, store: Path | str
) -> None:
    set_variables(monkeypatch, RATE_LIMIT_URL=value)
    assert load(Settings).rate_limit_store == store


def test_the_env_file_fills_what_the_environment_leaves_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_variables(monkeypatch)
    (tmp_path / ".env").write_text("ARCHIVE_PREFIX=calls\nARCHIVE_BUCKET=another\n")
    monkeypatch.setattr(settings, "ENV_FILE", tmp_path / ".env")
    monkeypatch.delenv("ARCHIVE_PREFIX", raising=False)
    known = load(Settings)
    monkeypatch.delenv("ARCHIVE_PREFIX")
    assert (known.archive_prefix, known.archive_bucket) == ("calls/", "archive")
    assert known.ledger == "s3://archive/calls/ledger"


def test_the_environment_wins_in_a_process_of_dagster_too_which_puts_the_env_file_above_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_variables(monkeypatch, ARCHIVE_PREFIX="environment/")
    monkeypatch.delenv("ARCHIVE_BUCKET")
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(
        "ARCHIVE_PREFIX=file/\nARCHIVE_BUCKET=of-the-file\nRINGCX_API_TOKEN=\nLEDGER_URL=/${ARCHIVE_PREFIX}\n"
    )
    for name, value in environment_for_dagster().items():
        monkeypatch.setenv(name, value)
    with _inject_local_env_file(logging.getLogger()):
        assert os.environ["ARCHIVE_PREFIX"] == "file/"
        known = load(Settings)
    assert (known.archive_prefix, known.archive_bucket) == ("environment/", "of-the-file")
    assert (known.ledger, bool(known.ringcx_api_token)) == ("/environment", True)


@pytest.mark.parametrize(("outside", "prefix"), [("b", "b/y"), (None, "a/y")])
def test_a_variable_in_a_value_of_the_env_file_is_the_environments_first(
    outside: str | None, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("BASE=a\nARCHIVE_PREFIX=${BASE}/y\n")
    monkeypatch.setenv("BASE", outside or "")
    if outside is None:
        monkeypatch.delenv("BASE")
    assert settings.env_file()["ARCHIVE_PREFIX"] == prefix


def test_the_calendar_needs_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(Calendar).zone.key == "UTC"


def test_a_margin_that_is_no_margin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, RINGCX_RETENTION_DAYS="14", RINGCX_RETENTION_MARGIN_DAYS="14")
    with pytest.raises(SettingsError, match="RINGCX_RETENTION_MARGIN_DAYS must be less than RINGCX_RETENTION_DAYS"):
        load(Settings)


def test_a_home_folder_is_expanded_wherever_a_folder_or_a_file_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = {"LEDGER_URL": "~/ledger", "EVENTS_URL": "~/events", "DATA_DIR": "~", "ARCHIVE_VERIFY_KEY_FILE": "~/k.pem"}
    set_variables(monkeypatch, HOME=str(tmp_path), **places)
    known = load(Settings)
    found = (known.ledger, known.events_url, str(known.data_dir), str(known.archive_verify_key_file))
    assert found == (f"{tmp_path}/ledger", f"{tmp_path}/events", str(tmp_path), f"{tmp_path}/k.pem")
    monkeypatch.setenv("LEDGER_URL", "s3://ledger-bucket/~/ledger")
    assert load(Settings).ledger == "s3://ledger-bucket/~/ledger"


def test_a_variable_that_nothing_reads_is_warned_of_once_with_the_nearest_name_and_without_its_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(settings, "_reported", set())
    misspelt = {"ARCHIVE_TIMZONE": "ARCHIVE_TIMEZONE", "RINGCX_ACCOUNT_ID": "RINGCX_ACCOUNT_IDS"}
    set_variables(monkeypatch, **dict.fromkeys(misspelt, "its-value"), EVENTS_XYZZY="its-value", EVENTS_PORT="8081")
    for kind in (Calendar, Settings, Settings):
        load(kind)
    messages = [record.getMessage() for record in caplog.records]
    assert [f"{warning.split()[0]} {warning.split()[-1]}" for warning in messages if "did you mean" in warning] == [
        f"{wrong} {right}?" for wrong, right in sorted(misspelt.items())
    ]
    assert sum("EVENTS_XYZZY" in warning and ".env.example" in warning for warning in messages) == 1
    assert len(messages) == 3
    assert "its-value" not in " ".join(messages)


def test_what_kubernetes_sets_for_a_service_of_our_name_is_not_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(settings, "_reported", set())
    set_variables(
        monkeypatch,
        RINGCX_ARCHIVE_SERVICE_HOST="10.0.0.1",
        RINGCX_ARCHIVE_SERVICE_PORT_HTTP="80",
        RINGCX_ARCHIVE_PORT="tcp://10.0.0.1:80",
        RINGCX_ARCHIVE_PORT_80_TCP_ADDR="10.0.0.1",
        ARCHIVE_PREFIX="",
    )
    load(Settings)
    assert not caplog.records


def test_the_services_of_one_process_share_an_s3_client_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(
        monkeypatch, AWS_ACCESS_KEY_ID="a" * 20, AWS_SECRET_ACCESS_KEY="b" * 40, AWS_DEFAULT_REGION="eu-central-1"
    )

    def client() -> object:
        with build_resources(all_resources()) as made:
            return made.environment.s3

    first = client()
    assert client() is first
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600)
    monkeypatch.setattr("pipelines.orchestration.environment.time", later)
    assert client() is not first


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("A=1\n\n  \nnonsense\n", "line 4 cannot be read: write NAME=value"),
        ("# a comment\nRINGCX_PASSWORD='its-value\nA=1\n", "line 2 cannot be read"),
        ('A="its-value"more\n', "line 1 cannot be read"),
        ("ARCHIVE_BUCKET: its-value\n", "line 1 cannot be read"),
        ("ARCHIVE_BUCKET\n", "line 1 cannot be read"),
        (
            "export ARCHIVE_BUKET=its-value\n",
            "line 1 sets ARCHIVE_BUKET, which is not a setting: correct it to ARCHIVE_BUCKET, or remove it",
        ),
    ],
)
def test_a_wrong_line_of_the_env_file_is_one_sentence_with_its_number_and_without_its_value(
    text: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(Calendar)
    assert f"{tmp_path}/.env" in str(caught.value)
    assert sentence in str(caught.value)
    assert "its-value" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_env_file_that_is_not_text_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("ARCHIVE_BUCKET=a\n", "utf-16")
    with pytest.raises(SettingsError, match="is not UTF-8 text: save it as UTF-8"):
        load(Calendar)


def test_comments_quotes_export_and_variables_of_others_are_read_as_in_any_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text(
        "\ufeff# a comment\n\nexport ARCHIVE_TIMEZONE='Europe/Berlin' # a city\nCOMPOSE_PROJECT_NAME=ours\r\n"
        'archive_start_date = "2026-11-01"\nAWS_REGION=eu-central-1\nEMPTY=\n'
    )
    for name in ("ARCHIVE_TIMEZONE", "COMPOSE_PROJECT_NAME", "archive_start_date", "AWS_REGION", "EMPTY"):
        monkeypatch.setenv(name, "")  # so that it is taken back afterwards
        monkeypatch.delenv(name)
    calendar = load(Calendar)
    assert (calendar.archive_timezone, str(calendar.archive_start_date)) == ("Europe/Berlin", "2026-11-01")
    assert os.environ["COMPOSE_PROJECT_NAME"] == "ours"


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, True), (0o600, False)])
def test_an_env_file_that_others_can_read_is_warned_of_once(
    mode: int, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("ARCHIVE_TIMEZONE=Europe/Berlin\nRINGCX_PASSWORD=not-to-be-shown\n")
    Path(".env").chmod(mode)
    assert [load(Calendar).archive_timezone for _ in range(2)] == ["Europe/Berlin"] * 2
    messages = [warning for warning in caplog.messages if "chmod 600" in warning]
    assert len(messages) == warned
    assert "not-to-be-shown" not in caplog.text


@pytest.mark.parametrize("value", ["s3://my-recordings", "my-recordings/ringcx"])
def test_a_bucket_with_more_than_its_name_says_where_the_rest_belongs(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    set_variables(monkeypatch, ARCHIVE_BUCKET=value)
    with pytest.raises(SettingsError, match="prefix of the keys into ARCHIVE_PREFIX"):
        load(Settings)


def test_an_access_point_is_a_bucket_for_the_archive_and_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    arn = "arn:aws:s3:eu-central-1:123456789012:accesspoint/recordings"
    set_variables(monkeypatch, ARCHIVE_BUCKET=arn, ARCHIVE_PREFIX="ringcx")
    known = load(Settings)
    assert known.archive_bucket == arn
    assert split_s3_url(known.ledger) == (arn, "ringcx/ledger")

"""`ringcx-archive check`: each thing that can be wrong before the first run is named, with a remedy."""

from __future__ import annotations

import io
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import urllib3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3 import HTTPHeaderDict

from pipelines.ledger.files import LocalFiles
from pipelines.ledger.states import Status
from pipelines.ledger.store import Ledger
from pipelines.ringcx.limits.limiter import RateLimiter
from pipelines.ringcx.media import RIFF_IDS
from pipelines.steps.connection.recordings import RecordingCheck, ledger_links
from sandbox.calls import calls_between
from sandbox.config import Credentials
from sandbox.faults import Faults, Where
from tests.commands import run
from tests.pipeline.conftest import MakeWorld, Store, World
from tests.servers.ports import free_port
from tests.servers.scripted_http import Request, Response, ScriptedServer
from tests.states import pending

MEDIA = Credentials(media_username="canary-media-user", media_password="canary-media-password")
WRONG = {
    "RINGCENTRAL_JWT": "canary-wrong-jwt-1a2b",
    "RINGCENTRAL_CLIENT_SECRET": "canary-wrong-secret-3c4d",
    "RINGCX_API_TOKEN": "canary-wrong-token-5e6f",
    "RINGCX_PASSWORD": "canary-wrong-password-7a8b",
    "RINGCX_MEDIA_PASSWORD": "canary-wrong-media-9c0d",
}
REPORTS = ("agent_segment_metadata", "global_call_type_detail")


@dataclass
class Check:
    """The command, and what it said: subject -> verdict and sentence."""

    world: World
    capsys: pytest.CaptureFixture[str]
    code: int = -1
    out: str = ""
    err: str = ""
    everything: str = ""
    findings: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __call__(self, *, s3: Any = None, now: datetime | None = None, arguments: list[str] | None = None) -> int:
        self.capsys.readouterr()
        clock = {} if now is None else {"clock": lambda: now}
        self.code = run("check", arguments or [], s3 or self.world.s3, backoff_s=0.01, **clock)
        self.out, self.err = self.capsys.readouterr()
        self.everything += self.out + self.err
        self.findings = {}
        joined = re.sub(r"\n {11}", " ", self.out)
        for line in joined.splitlines()[:-1]:
            match = re.fullmatch(r"(ok|warning|failed|not tried) +(.+?): (.+)", line)
            assert match, line
            self.findings[match[2]] = (match[1], match[3])
        return self.code

    def verdicts(self, verdict: str) -> set[str]:
        return {subject for subject, (found, _) in self.findings.items() if found == verdict}

    def sentence(self, subject: str) -> str:
        return self.findings[subject][1]


@pytest.fixture
def make_world(make_world: MakeWorld, rclone: Store) -> MakeWorld:
    """With a store that is spoken to by HTTP, and has a clock."""
    return partial(make_world, store=rclone)


@pytest.fixture
def check(make_world: MakeWorld, noon: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., Check]:
    def make(**arguments: Any) -> Check:
        sandbox = {"calls_per_day": (2000, 2000), "timezone": noon, **arguments.pop("sandbox", {})}
        return Check(make_world(sandbox=sandbox, **arguments), capsys)

    return make


def of_account(*names: str, account: str = "15300002") -> set[str]:
    return {f"{name} of account {account}" for name in names}


def test_on_a_server_that_ignores_conditions_all_works_and_the_warnings_say_what_it_lacks(
    check: Callable[..., Check],
) -> None:
    command = check()
    assert command() == 0, command.out
    assert command.verdicts("failed") == command.verdicts("not tried") == set()
    assert command.verdicts("warning") == {
        "links of recordings",
        "S3 create-only puts",
        "S3 checksums",
        "S3 delete",
        "S3 versioning",
        "S3 Object Lock",
    }
    assert "ignores the condition" in command.sentence("S3 create-only puts")
    assert "sends each put's Content-MD5" in command.sentence("S3 checksums")
    assert "anyone who has a link can download" in command.sentence("links of recordings")
    assert command.out.endswith("No failure, 6 warnings: you can run a first date.\n")


def test_on_a_server_that_honours_conditions_versions_and_locks_those_are_ok(
    check: Callable[..., Check], moto: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = check(store=moto)
    assert command() == 0, command.out
    assert command.findings["S3 create-only puts"][0] == "ok"
    assert command.findings["S3 Object Lock"][0] == command.findings["S3 versioning"][0] == "warning"
    bucket = f"locked-{uuid.uuid4().hex[:12]}"
    moto.client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 365}}
    moto.client.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    monkeypatch.setenv("ARCHIVE_BUCKET", bucket)
    assert command() == 0, command.out
    assert command.findings["S3 versioning"] == ("ok", "on.")
    assert command.findings["S3 Object Lock"] == ("ok", "on, by default for 365 days, compliance.")


def test_it_asks_for_little_and_keeps_nothing_but_its_own_tiny_objects(check: Callable[..., Check]) -> None:
    slow = Faults(slow=Where(share=1.0), slow_bytes_per_s=96_000)
    command = check(faults=slow, sandbox={"talk_seconds": (300, 400), "accounts": ("15300002", "15300003")})
    started = time.monotonic()
    assert command() == 0, command.out
    assert time.monotonic() - started < 40, "the whole of a recording was read, which takes 50 s"
    counted = command.world.sandbox.counters()
    assert counted["requests"]["report"] == 4, "two reports an account"
    assert 1 <= counted["requests"]["media"] <= 3
    assert not any(counted["violations"].values()), counted["violations"]
    kept = {re.sub(r"connection-.*", "connection", key) for key in command.world.objects("")}
    assert kept == {"ledger/probes/connection", "probes/checksum", "probes/create-only"}
    today = datetime.now(UTC).date()
    run("verify", ["--from", str(today), "--to", str(today)], command.world.s3)
    assert "no part of the documented layout" not in command.capsys.readouterr().out


def test_what_may_not_be_removed_stays_and_is_no_stray(check: Callable[..., Check], moto: Store) -> None:
    command = check(store=moto)
    with answering(command.world.s3, "DELETE", 403, "AccessDenied"):
        assert command() == 0, command.out
    verdict, sentence = command.findings["S3 delete"]
    assert verdict == "ok"
    assert sentence.startswith("refused, as it should be")
    assert [key for key in command.world.objects("") if key.startswith("probes/connection-")]
    assert "under probes/" in sentence
    today = datetime.now(UTC).date()
    run("verify", ["--from", str(today), "--to", str(today)], command.world.s3)
    assert "no part of the documented layout" not in command.capsys.readouterr().out


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"RINGCENTRAL_JWT": WRONG["RINGCENTRAL_JWT"]}, "(Invalid JWT); check RINGCENTRAL_JWT"),
        (
            {"RINGCENTRAL_CLIENT_SECRET": WRONG["RINGCENTRAL_CLIENT_SECRET"]},
            "(Wrong client id or secret); check RINGCENTRAL_JWT",
        ),
        (
            {"RINGCX_USERNAME": "archive@example.com", "RINGCX_PASSWORD": WRONG["RINGCX_PASSWORD"]},
            "check RINGCX_USERNAME and RINGCX_PASSWORD",
        ),
    ],
)
def test_a_wrong_log_in_is_named_and_what_does_not_rest_on_it_is_tried_all_the_same(
    check: Callable[..., Check], variables: dict[str, str], sentence: str
) -> None:
    command = check(**variables)
    assert command() == 1
    assert command.verdicts("failed") == {"log-in"}
    assert sentence in command.sentence("log-in")
    assert command.verdicts("not tried") == {*of_account(*REPORTS), "a recording", "links of recordings"}
    assert command.findings["S3 put"][0] == command.findings["ledger"][0] == "ok"
    assert command.out.splitlines()[-1].startswith("1 failure, ")
    assert not any(value in command.out for value in WRONG.values())


def test_a_wrong_token_shows_at_the_first_report(check: Callable[..., Check]) -> None:
    command = check(RINGCX_API_TOKEN=WRONG["RINGCX_API_TOKEN"])
    assert command() == 1
    assert command.verdicts("failed") == of_account(*REPORTS)
    assert "check RINGCX_API_TOKEN" in command.sentence("agent_segment_metadata of account 15300002")


@pytest.mark.parametrize(("way", "sentence"), [("password", "it returns a token"), ("token", "is sent as it is")])
def test_the_legacy_log_ins_work_too(
    check: Callable[..., Check], way: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = check()
    for name, value in command.world.sandbox.environment(login=way).items():
        monkeypatch.setenv(name, value)
    assert command() == 0, command.out
    assert sentence in command.sentence("log-in")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("report_forbidden", "has the right READ on Account"),
        ("report_html_200", "the body is HTML or XML"),
        ("report_json_error_200", "the body is a JSON object, as errors are"),
        ("report_empty_body", "the body is empty"),
        ("report_server_error", "is not available now (HTTP 503"),
    ],
)
def test_a_report_that_is_refused_or_is_none_is_named_and_the_other_one_is_read(
    check: Callable[..., Check], fault: str, sentence: str
) -> None:
    command = check(faults=Faults(**{fault: Where(paths=("global_call_type_detail",))}))
    assert command() == 1
    assert command.verdicts("failed") == of_account("global_call_type_detail")
    assert sentence in command.sentence("global_call_type_detail of account 15300002")
    assert command.findings["agent_segment_metadata of account 15300002"][0] == "ok"


def test_an_account_that_the_user_may_not_read_is_named_by_its_id(check: Callable[..., Check]) -> None:
    command = check(RINGCX_ACCOUNT_IDS="15300002,99999999")
    assert command() == 1
    assert command.verdicts("failed") == of_account(*REPORTS, account="99999999")


def test_without_network_the_source_is_not_asked_again_and_again(check: Callable[..., Check]) -> None:
    command = check(RINGCX_API_URL=f"http://127.0.0.1:{free_port()}/voice/api")
    assert command() == 1
    assert command.verdicts("failed") == {"connection to RingCX"}
    assert "Check the machine's network" in command.sentence("connection to RingCX")
    assert of_account(*REPORTS) <= command.verdicts("not tried")


def test_recordings_behind_a_log_in_are_given_to_it_and_refused_without(
    check: Callable[..., Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = check(sandbox={"credentials": MEDIA})
    assert command() == 0, command.out
    assert command.findings["a recording"][0] == "ok"
    assert command.findings["links of recordings"] == ("ok", "are refused without the log-in for recordings.")
    monkeypatch.setenv("RINGCX_MEDIA_PASSWORD", WRONG["RINGCX_MEDIA_PASSWORD"])
    assert command() == 1
    assert command.verdicts("failed") == {"a recording"}
    assert "set RINGCX_MEDIA_USERNAME and RINGCX_MEDIA_PASSWORD" in command.sentence("a recording")
    assert command.findings["links of recordings"][0] == "not tried"


def test_a_log_in_that_nobody_needs_does_not_hide_that_links_are_open(check: Callable[..., Check]) -> None:
    command = check(RINGCX_MEDIA_USERNAME="somebody", RINGCX_MEDIA_PASSWORD="something-long")
    assert command() == 0, command.out
    assert command.findings["links of recordings"][0] == "warning"
    assert command.world.sandbox.counters()["requests"]["media"] == 2


@pytest.mark.parametrize(
    ("fault", "verdict", "sentence"),
    [
        ("html_200", "failed", "often a log-in page"),
        ("not_found", "warning", "check again later"),
        ("mp3", "warning", "is not a WAV"),
        ("server_error", "failed", "check the network"),
        ("redirect_other_host", "failed", "RINGCX_MEDIA_HOSTS"),
    ],
)
def test_what_comes_in_the_place_of_a_recording_is_told_apart(
    check: Callable[..., Check], fault: str, verdict: str, sentence: str
) -> None:
    command = check(faults=Faults(**{fault: Where(share=1.0)}), sandbox={"evil_host": "localhost:9"})
    assert command() == (1 if verdict == "failed" else 0)
    assert command.findings["a recording"][0] == verdict
    assert sentence in command.sentence("a recording")


@pytest.mark.parametrize("magic", RIFF_IDS)
def test_every_kind_of_wav_that_a_run_archives_is_a_recording(magic: bytes) -> None:
    class Media:
        def fetch(self, _url: str, _account_id: str, body: io.BytesIO) -> None:
            body.write(magic + b"\xff\xff\xff\xffWAVE" + bytes(100))

    media: Any = Media()
    check = RecordingCheck(media, media, has_log_in=False, subject="a recording", plural="links", remedy="")
    assert "is a WAV" in next(check.results([("1", "https://c.vacd.biz/a.WAV")])).sentence


def test_a_host_that_is_not_listed_is_never_asked(check: Callable[..., Check]) -> None:
    command = check(RINGCX_MEDIA_HOSTS="*.vacd.biz")
    assert command() == 1
    assert "add it to RINGCX_MEDIA_HOSTS" in command.sentence("a recording")
    assert command.world.sandbox.counters()["requests"].get("media", 0) == 0


def test_a_quiet_account_is_tried_with_a_link_of_the_ledger(check: Callable[..., Check], recent: list[date]) -> None:
    command = check(sandbox={"calls_per_day": (3, 3), "timezone": "UTC", "crossing_zones": ()})
    command.world.sandbox.set_faults({"late_rows": {"share": 0.0}})
    assert command.world.run(recent[0]).success
    command.world.sandbox.set_faults({"late_rows": {"share": 1.0}})
    assert command() == 0, command.out
    assert command.findings["a recording"][0] == "ok"


def test_without_any_link_it_says_so_and_fails_nothing(check: Callable[..., Check]) -> None:
    command = check(faults=Faults(late_links=Where(share=1.0)))
    assert command() == 0, command.out
    assert command.verdicts("not tried") == {"a recording", "links of recordings"}
    assert command.out.splitlines()[-1].endswith("2 not tried: you can run a first date.")


def test_a_bucket_that_there_is_not_is_named_and_the_source_is_tried_all_the_same(
    check: Callable[..., Check], moto: Store
) -> None:
    command = check(store=moto, ARCHIVE_BUCKET="there-is-no-such-bucket")
    assert command() == 1
    assert {"S3 list", "S3 put", "ledger"} <= command.verdicts("failed")
    assert "There is no bucket there-is-no-such-bucket" in command.sentence("S3 put")
    untried = ("create-only puts", "checksums", "get", "delete", "versioning", "Object Lock")
    assert {f"S3 {what}" for what in untried} == command.verdicts("not tried")
    assert command.findings["clock against S3"][0] == "ok", "an error's answer bears a date too"
    assert command.findings["a recording"][0] == "ok"


def test_wrong_keys_are_refused_and_never_shown(check: Callable[..., Check], monkeypatch: pytest.MonkeyPatch) -> None:
    command = check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-wrong-aws-secret-000000000000")
    capsys = command.capsys
    capsys.readouterr()
    assert run("check", [], backoff_s=0.01) == 1
    out = capsys.readouterr().out
    assert "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID" in re.sub(r"\n +", " ", out)
    assert "canary-wrong-aws-secret" not in out


def test_a_missing_right_to_put_is_named(check: Callable[..., Check], moto: Store) -> None:
    command = check(store=moto, LEDGER_URL="ledger")
    with answering(command.world.s3, "PUT", 403, "AccessDenied"):
        assert command() == 1
    assert command.verdicts("failed") == {"S3 put"}
    assert "S3 refused s3:PutObject" in command.sentence("S3 put")
    assert command.findings["S3 list"][0] == command.findings["ledger"][0] == "ok"


def test_a_bucket_of_another_region_is_named(check: Callable[..., Check], moto: Store) -> None:
    command = check(store=moto, LEDGER_URL="ledger")
    with answering(command.world.s3, "PUT", 301, "PermanentRedirect"):
        assert command() == 1
    assert "set AWS_REGION to the bucket's own" in command.sentence("S3 put")


def test_protection_that_may_not_be_read_is_no_failure(check: Callable[..., Check], moto: Store) -> None:
    command = check(store=moto)
    with (
        answering(command.world.s3, "GET", 403, "AccessDenied", query="versioning"),
        answering(command.world.s3, "GET", 403, "AccessDenied", query="object-lock"),
    ):
        assert command() == 0, command.out
    for subject in ("S3 versioning", "S3 Object Lock"):
        assert command.findings[subject][0] == "ok"
        assert "cannot be read with these credentials" in command.sentence(subject)


@pytest.mark.parametrize("minutes", [-10, -2, 0, 2, 10])
def test_a_clock_that_is_wrong_is_named_and_too_wrong_fails_s3(check: Callable[..., Check], minutes: int) -> None:
    command = check()
    code = command(now=datetime.now(UTC) + timedelta(minutes=minutes))
    verdict = {0: "ok", 2: "warning", 10: "failed"}[abs(minutes)]
    assert command.findings["clock against S3"][0] == verdict
    assert command.findings["clock against RingCX"][0] == ("ok" if verdict == "ok" else "warning")
    assert code == (1 if verdict == "failed" else 0)
    if minutes:
        assert ("ahead" if minutes > 0 else "behind") in command.sentence("clock against S3")


def test_a_ledger_that_cannot_be_written_is_named(check: Callable[..., Check], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = check(LEDGER_URL=str(tmp_path / "file" / "ledger"))
    assert command() == 1
    assert command.verdicts("failed") == {"ledger"}
    assert "check the folder that LEDGER_URL names" in command.sentence("ledger")


def test_a_place_of_the_limits_that_cannot_be_used_is_named(check: Callable[..., Check], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = check(RATE_LIMIT_URL=str(tmp_path / "file" / "limits.sqlite"), RINGCX_LIMIT_REPORTS="2/60")
    assert command() == 1
    assert "limits" in command.verdicts("failed")
    assert command.findings["S3 put"][0] == "ok"


def test_the_limits_that_are_used_are_shown(check: Callable[..., Check]) -> None:
    command = check(RINGCX_LIMIT_REPORTS="20/60", RINGCX_LIMIT_MEDIA="30/60,100/900")
    assert command() == 0, command.out
    assert command.sentence("limits").startswith("reports 20/60, media 30/60,100/900, auth none")


def test_a_silence_that_a_host_asked_for_is_shown(check: Callable[..., Check], tmp_path: Path) -> None:
    where = tmp_path / "silences.sqlite"
    limiter = RateLimiter(where)
    limiter.hold_off("media@c02-recordings.virtualacd.biz", "15300002", 999_999)
    limiter.close()
    command = check(RATE_LIMIT_URL=str(where))
    command()
    assert "limits" in command.verdicts("warning")
    assert "media@c02-recordings.virtualacd.biz of account 15300002 for" in command.sentence("limits")


def test_the_proxy_is_named_without_its_credentials(
    check: Callable[..., Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = check()
    monkeypatch.setenv("HTTP_PROXY", f"http://ada:hush@127.0.0.1:{free_port()}")
    assert command() == 1
    network = command.sentence("network")
    assert network.count("the proxy http://127.0.0.1:") == 2
    assert "hush" not in command.out


@pytest.mark.parametrize(
    ("status", "body", "verdict", "sentence"),
    [
        (200, "json", "ok", "can be read"),
        (403, "json", "failed", "WEM access right"),
        (401, "text", "failed", "WEM access right"),
        (404, "text", "failed", "RINGCX_RC_ACCOUNT_ID"),
        (200, "html", "failed", "the body is HTML"),
    ],
)
def test_interaction_metadata_is_asked_for_where_the_source_uses_it(
    check: Callable[..., Check], status: int, body: str, verdict: str, sentence: str
) -> None:
    with current_api(status, body) as (url, asked):
        command = check(RINGCX_SOURCE="current", RINGCX_RC_ACCOUNT_ID="37439510", RINGCX_API_URL=url)
        assert command() == (0 if verdict == "ok" else 1), command.out
    request = asked[-1]
    assert len(asked) == (2 if status == 401 else 1), "a 401 is worth one fresh token"
    assert request["path"].endswith("/accounts/37439510/sub-accounts/15300002/interaction-metadata")
    assert request["body"]["timeInterval"] == 300
    assert request["authorization"].startswith("Bearer ")
    subject = "interaction_metadata of account 15300002"
    assert command.findings[subject][0] == verdict
    assert sentence in command.sentence(subject)
    assert not of_account(*REPORTS) & set(command.findings), "the reports are not asked for"


@pytest.mark.parametrize(
    ("variables", "arguments", "sentence"),
    [
        ({"ARCHIVE_BUCKET": ""}, [], "ARCHIVE_BUCKET is not set"),
        ({"RINGCENTRAL_JWT": ""}, [], "No complete log-in is set"),
        ({"RINGCX_API_TOKEN": "canary\nbroken"}, [], "RINGCX_API_TOKEN contains something other than a token"),
        ({}, ["--quick"], "No such option '--quick'"),
    ],
)
def test_a_wrong_setting_or_command_ends_with_2_and_a_sentence(
    check: Callable[..., Check], variables: dict[str, str], arguments: list[str], sentence: str
) -> None:
    command = check(**variables)
    assert command(arguments=arguments) == 2
    assert sentence in command.err
    assert command.out == ""
    assert "canary" not in command.err


def test_a_first_date_that_is_not_set_fails_and_the_sentence_names_the_first_that_the_source_keeps(
    check: Callable[..., Check],
) -> None:
    command = check(ARCHIVE_START_DATE="", RINGCX_RETENTION_DAYS="30")
    kept = datetime.now(UTC).date() - timedelta(days=29)
    assert command() == 1
    assert command.verdicts("failed") == {"first date"}
    assert f"ARCHIVE_START_DATE is not set. RingCX has recordings back to {kept}" in command.sentence("first date")


def test_no_secret_link_or_personal_data_is_shown(check: Callable[..., Check], monkeypatch: pytest.MonkeyPatch) -> None:
    command = check(sandbox={"credentials": MEDIA})
    assert command() == 0, command.out
    for name, value in WRONG.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            if name == "RINGCX_PASSWORD":
                patch.setenv("RINGCX_USERNAME", MEDIA.username)
            assert command() == 1, name
    command.world.sandbox.set_faults({"report_forbidden": {"share": 1.0}})
    assert command() == 1
    tokens = command.world.sandbox._server.config.app.state.sandbox.tokens
    secret = {*tokens._oauth, *tokens._bearer, *tokens._refresh, *tokens._legacy, *WRONG.values()}
    secret |= {MEDIA.client_secret, MEDIA.jwt, MEDIA.password, MEDIA.api_token, MEDIA.media_username}
    secret |= {MEDIA.media_password, command.world.variables["AWS_SECRET_ACCESS_KEY"]}
    assert not [value for value in secret if value in command.everything]
    state, now = command.world.sandbox._server.config.app.state.sandbox, datetime.now(UTC)
    calls = list(calls_between(state.plan, "15300002", now - timedelta(hours=1), now))
    personal = {text for call in calls for text in (call.ani, call.dnis, call.uii) if text}
    assert len(personal) > 5
    assert not [text for text in personal if text in command.everything]
    assert ".WAV" not in command.everything


@contextmanager
def answering(client: Any, method: str, status: int, code: str, *, query: str = "") -> Iterator[None]:
    """Requests of this kind are answered so, as by a server with such rights."""

    def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        if request.method != method or query not in request.url.partition("?")[2]:
            return None
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        raw = urllib3.HTTPResponse(io.BytesIO(body), preload_content=False)
        return AWSResponse(request.url, status, HTTPHeaderDict({"Content-Type": "application/xml"}), raw)

    name = uuid.uuid4().hex
    client.meta.events.register("before-send.s3", answer, unique_id=name)
    try:
        yield
    finally:
        client.meta.events.unregister("before-send.s3", unique_id=name)


@contextmanager
def current_api(status: int, body: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Answers every request for interaction metadata so; the address of its API, and what was asked."""
    asked: list[dict[str, Any]] = []
    kinds = {"json": ("application/json", b"[]"), "text": ("text/plain", b"no"), "html": ("text/html", b"<html/>")}
    kind, answer = kinds[body]

    def respond(request: Request) -> Response:
        if request.method != "POST":
            return Response(404)
        sent = json.loads(request.body)
        asked.append({"path": request.path, "body": sent, "authorization": request.headers["Authorization"]})
        return Response(status, answer, {"Content-Type": kind})

    with ScriptedServer(respond) as server:
        yield f"{server.url}/voice/api", asked


def test_without_a_client_for_s3_it_ends_with_the_setting_that_is_wrong(
    check: Callable[..., Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = check()
    monkeypatch.setenv("AWS_PROFILE", "none-of-ours")
    command.capsys.readouterr()
    assert run("check", [], None, backoff_s=0.01) == 2
    output = command.capsys.readouterr()
    assert output.out == ""
    assert "AWS_PROFILE names a profile that is not in AWS's configuration files" in output.err


def test_a_recording_that_is_archived_is_requested_rather_than_a_newer_one_that_is_pending(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    old = pending("1/a", now.date() - timedelta(days=1), now)
    held = {"status": Status.archived, "next_attempt_at": None, "key": "k", "size": 1, "sha256": "0" * 64}
    ledger = Ledger(LocalFiles(tmp_path), clock=lambda: now)
    ledger.append_states([replace(old, attempts=1, **held), new := pending("1/b", now.date(), now)])
    assert ledger_links(ledger, segments=False) == [("1", old.link)]
    assert ledger_links(ledger, segments=True) == []
    other = Ledger(LocalFiles(tmp_path / "other"), clock=lambda: now)
    other.append_states([new])
    assert ledger_links(other, segments=False) == [("1", new.link)]

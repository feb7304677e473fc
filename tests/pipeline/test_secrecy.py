"""Secrets and personal data are only where they belong, whatever goes wrong and wherever one looks.

Report rows in the ledger and the table of calls hold numbers, names and notes, and states hold links; that is their
purpose. Everything else that a run leaves behind is read here, and none of it may.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster import DagsterInstance

from pipelines.ringcx.reports.columns import REPORTS
from sandbox.calls import calls_between
from sandbox.config import Credentials, Limits
from sandbox.faults import Faults, Where
from sandbox.s3 import SECRET_ACCESS_KEY
from tests.pipeline.conftest import MakeWorld, Store, World

ROOT = Path(__file__).parents[2]
OWN = Credentials(
    client_secret="canary-client-secret-7f3a",
    jwt="canary.jwt.5be1",
    username="canary-user@example.com",
    password="canary-password-c0de",
    api_token="aws80:canary-api-token-11aa",
    media_username="canary-recorder",
    media_password="canary-media-password-9d2e",
)
WRONG = {
    "RINGCENTRAL_JWT": "canary.wrong.jwt-33d4",
    "RINGCENTRAL_CLIENT_SECRET": "canary-wrong-secret-77e0",
    "RINGCX_MEDIA_PASSWORD": "canary-wrong-media-password-ab12",
    "RINGCX_PASSWORD": "canary-wrong-password-e5f6",
    "RINGCX_API_TOKEN": "canary-wrong-token-4c4c",
}
FAULTS = Faults(
    seed=11,
    link_evil_host=Where(share=0.08),
    link_credentials=Where(share=0.08),
    link_http=Where(share=0.08),
    link_stray_blanks=Where(share=0.2),
    reset_early=Where(share=0.1, first=1),
    server_error=Where(share=0.1),
    throttled=Where(share=0.03, first=1),
    not_found=Where(share=0.1),
    html_200=Where(share=0.1),
    json_200=Where(share=0.1),
    cut_off=Where(share=0.1),
    forbidden=Where(share=0.1),
    redirect_other_host=Where(share=0.1),
    report_html_200=Where(paths=("agent_segment_metadata/inbound",), first=1),
    token_seconds=2.0,
)
SIGNED = "X-Amz-Signature=canarysignature0123&token=canarytoken4567"


def secrets_of(world: World) -> set[str]:
    """All that lets somebody in: what is set, what the sandbox has given out, and the forms in which it travels."""
    tokens = world.sandbox._server.config.app.state.sandbox.tokens
    issued = {*tokens._oauth, *tokens._bearer, *tokens._refresh, *tokens._legacy}
    assert len(issued) > 4, "nobody logged in, so nothing was shown"
    own = {OWN.client_secret, OWN.jwt, OWN.password, OWN.api_token, OWN.media_password, SECRET_ACCESS_KEY}
    pairs = (f"{OWN.client_id}:{OWN.client_secret}", f"{OWN.media_username}:{OWN.media_password}", "root:toor")
    coded = {base64.b64encode(pair.encode()).decode() for pair in pairs}
    links = {"root:toor", "canarysignature0123", "canarytoken4567", "canary-link-password", "compliance=true"}
    return issued | own | coded | links | set(WRONG.values())


def personal_data_of(world: World, *days: date) -> set[str]:
    """The numbers, names, users and notes that the reports of these days hold."""
    config = world.sandbox.config
    found: set[str] = set()
    for day in days:
        start = datetime.combine(day, datetime.min.time(), UTC)
        for call in calls_between(config.plan(), config.accounts[0], start, start + timedelta(days=1)):
            found |= {call.ani, call.dnis, call.notes}
            for leg in call.segments:
                found |= {leg.first_name, leg.last_name, leg.username}
                found |= {leg.disposition} if len(leg.disposition) > 12 else set()
    found.discard("")
    assert len(found) > 30
    return found


def leaks_in(texts: Iterable[tuple[str, str]], forbidden: set[str]) -> list[tuple[str, str]]:
    """Where something forbidden stands: (place, what). A short name counts as a word, not as a part of one."""
    plain = [secret for secret in forbidden if len(secret) > 6 or not secret.isascii()]
    words = re.compile("|".join(rf"\b{re.escape(secret)}\b" for secret in forbidden if secret not in plain) or r"(?!)")
    found = []
    for where, text in texts:
        # Dagster and JSON write other scripts as \uXXXX, sometimes twice over.
        readable = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), text)
        found += [(where, secret) for secret in plain if secret in text or secret in readable]
        found += [(where, match[0]) for match in words.finditer(readable)]
    return found


def events_of(instance: DagsterInstance) -> Iterator[tuple[str, str]]:
    """Everything an instance keeps of its runs: events with metadata and traces, run config, tags."""
    for record in instance.get_run_records():
        run = record.dagster_run
        yield f"run {run.run_id}", json.dumps([run.run_config, run.tags], ensure_ascii=False)
        for entry in instance.all_logs(run.run_id):
            yield f"event {entry.dagster_event_type} of {entry.step_key}", entry.to_json()
            yield (
                f"message of {entry.step_key}",
                f"{entry.user_message}\n{entry.get_dagster_event() if entry.is_dagster_event else ''}",
            )


def files_under(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes().decode("utf-8", "replace")


def bucket_of(world: World) -> Iterator[tuple[str, str]]:
    """Every key, every object's metadata, every body but the recordings' and the two columns that may tell."""
    for page in world.s3.get_paginator("list_objects_v2").paginate(Bucket=world.bucket):
        for item in page.get("Contents", []):
            key = item["Key"]
            head = world.s3.head_object(Bucket=world.bucket, Key=key)
            yield f"key {key}", key
            yield f"metadata of {key}", json.dumps([head["Metadata"], head["ContentType"]], ensure_ascii=False)
            if key.startswith(("recordings/", "conflicts/", "ledger/report_rows/", "calls/")):
                continue
            body = world.s3.get_object(Bucket=world.bucket, Key=key)["Body"].read()
            if key.endswith(".parquet"):
                table = pq.read_table(pa.BufferReader(body))
                kept = [name for name in table.column_names if not (key.startswith("ledger/") and name == "link")]
                yield key, json.dumps(table.select(kept).to_pylist(), default=str, ensure_ascii=False)
            else:
                yield key, body.decode("utf-8", "replace")


def hostile_rows(world: World) -> pa.Table:
    """Links as somebody who wants to be seen in a log would write them."""
    base, file = f"http://{world.sandbox.host}/api/v1/calls/recordings", "15300002/202611/19/canary"
    links = [
        f"{base}?accountId=15300002&file={file}-1.WAV&{SIGNED}",
        f"http://someone:canary-link-password@{world.sandbox.host}/api/v1/calls/recordings?file={file}-2.WAV&{SIGNED}",
        f"https://evil.example.com/x?file={file}-3.WAV&{SIGNED}",
        f"ht!tp://someone:canary-link-password@nowhere?{SIGNED}",
        f"{base}?file={file}-4.WAV&{SIGNED}{'x' * 5000}",
        f"{base}/elsewhere?{SIGNED}",
        f"https://{world.sandbox.host}\x00/?file={file}-5.WAV&{SIGNED}",
    ]
    count = len(links)
    return pa.table(
        {
            "row_key": [f"hostile-{number}" for number in range(count)],
            "row_hash": [f"{number:032x}" for number in range(count)],
            "uii": ["202611190000000101320000000001"] * count,
            "ani": ["6025550142"] * count,
            "recording_url": links,
            "call_start_dts": pa.nulls(count, pa.string()),
            "call_duration": ["5"] * count,
        }
    )


def materialized(world: World, day: date, home: Path) -> subprocess.CompletedProcess[str]:
    """The documented command, in a process of its own, with an instance that keeps everything in `home`."""
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "pipelines.definitions"]
    basic = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [*command, "--select", "*", "--partition", day.isoformat()],
        env={**basic, **world.variables, "DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(autouse=True)
def _dagster_keeps_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.pipeline.conftest.UNREAD", frozenset())


@pytest.fixture
def make_world(make_world: MakeWorld, rclone: Store) -> MakeWorld:
    """With a store that other processes reach."""
    return partial(make_world, store=rclone)


@pytest.mark.slow
def test_no_secret_and_no_personal_data_stands_in_anything_that_a_run_leaves_behind(
    make_world: MakeWorld,
    recent: list[date],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    home = Path.cwd() / "home"
    free = Limits(reports="none", exchange="none", metadata="none", download="none")
    world = make_world(
        faults=FAULTS,
        sandbox={"credentials": OWN, "calls_per_day": (14, 14), "limits": free},
        RINGCX_SOURCE="both",
        RINGCX_LIMIT_METADATA="none",
        RINGCX_LIMIT_MEDIA="none",
    )
    day, other = recent[0], recent[1]
    world.console_level = "DEBUG"
    command = materialized(world, day, home)
    assert "RUN_" in command.stderr + command.stdout, command.stderr

    world.services().ledger.append_rows(
        "global_call_type_detail",
        day,
        hostile_rows(world),
        account_id="15300002",
        pulled_at=datetime.now(UTC),
        run_id="x",
    )
    world.run(day, checks=True)
    world.sandbox.set_faults(
        {"report_forbidden": ["agent_segment_metadata*"], "report_json_error_200": ["global*", "inter*"]}
    )
    world.run(other, checks=True)
    world.sandbox.set_faults(Faults())
    for wrong in (
        {"RINGCENTRAL_JWT": WRONG["RINGCENTRAL_JWT"]},
        {"RINGCENTRAL_CLIENT_SECRET": WRONG["RINGCENTRAL_CLIENT_SECRET"]},
        {"RINGCX_API_TOKEN": WRONG["RINGCX_API_TOKEN"]},
        {"RINGCX_USERNAME": OWN.username, "RINGCX_PASSWORD": WRONG["RINGCX_PASSWORD"]},
        {"RINGCX_API_URL": f"https://someone:{WRONG['RINGCX_PASSWORD']}@ringcx.example.com"},
        {"RINGCX_API_TOKEN": "canary-wrong-token-4c4c\nwith a line break"},
        {"RINGCX_MEDIA_PASSWORD": WRONG["RINGCX_MEDIA_PASSWORD"]},
    ):
        with monkeypatch.context() as patch:
            for name, value in wrong.items():
                patch.setenv(name, value)
            assert not world.run(other, checks=True).success, wrong.keys()

    out, err = capfd.readouterr()
    places = [
        ("stdout of the command", command.stdout),
        ("stderr of the command", command.stderr),
        ("stdout", out),
        ("stderr", err),
        ("logging", caplog.text),
        *events_of(world.instance),
        *files_under(home),
        *files_under(Path(world.variables["DATA_DIR"])),
        *bucket_of(world),
    ]
    with DagsterInstance.from_config(str(home)) as kept:
        stored = list(events_of(kept))
    assert len(stored) > 50
    whole = "\n".join(text for _, text in [*places, *stored])
    for sign in (
        "HTTP 403",
        "link_refused",
        "host_not_allowed",
        "credentials_in_url",
        "Requesting it again",
        "refused the log-in",
    ):
        assert sign in whole, f"{sign} did not happen, so nothing was shown about it"
    personal = personal_data_of(world, day - timedelta(days=1), day, other)
    ledger = world.services().ledger
    rows = [json.dumps(ledger.all_rows(report, day).to_pylist(), default=str) for report in REPORTS]
    links = json.dumps([state.link for state in world.states(day).values()])
    assert len({text_found for _, text_found in leaks_in((("rows", text) for text in rows), personal)}) > 30, (
        "it looks for nothing real"
    )
    assert leaks_in([("links", links)], secrets_of(world)), "it looks for nothing real"
    assert leaks_in([*places, *stored], secrets_of(world)) == []
    assert leaks_in([*places, *stored], personal) == []

"""A whole date from a source that means harm: reports and recordings over sockets, runs by Dagster, a bucket in memory.

Every recording ends in a state with a reason, the good ones among the bad are held, nothing is written elsewhere, no
credential goes anywhere but to the source, and no log holds what must not be in one.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import logging
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from dagster import AssetKey, DagsterInstance, ExecuteInProcessResult

from pipelines.archive.client import make_s3_client
from pipelines.calendar import day_bounds
from pipelines.definitions import build_defs
from pipelines.errors import ExpectedError
from pipelines.ledger.states import RecordingState, Status
from pipelines.orchestration.environment import Environment
from pipelines.ringcx.reports.requests import Period
from pipelines.steps.pull.reports import pull_each, pull_report
from tests.memory_s3 import MemoryS3
from tests.pipeline.nursery import assets_alone
from tests.servers.raw_http import Answer, RawServer
from tests.services import Services

DAY = date(2026, 3, 2)  # long over: a bad recording is given up as soon as it was asked for often enough
INSIDE = "c99-recordings.inside.example"
LINK_SECRET = "k3y-in-the-link"
CALLER = "+15550100999"

Speak = Callable[..., bytes]


@dataclass
class Archiver:
    """The product, pointed at a source of ours."""

    bucket: str
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    instance: DagsterInstance
    passed: timedelta = timedelta(0)
    """How far the archiver's clock is ahead."""

    def run_until_final(self, *assets: str) -> ExecuteInProcessResult:
        """Three runs within 26 hours; return the last. It alone has the checks, which change nothing."""
        for checks in (False, False, True):
            result = self.run(*assets, checks=checks)
            self.passed += timedelta(hours=13)
        return result

    def run(self, *assets: str, checks: bool = True) -> ExecuteInProcessResult:
        environment = Environment(clock=lambda: datetime.now(UTC) + self.passed, backoff_s=0.01)
        job = build_defs(environment=environment).resolve_job_def("archive_day")
        if not checks:
            job = assets_alone(job, assets)
        return job.execute_in_process(
            partition_key=DAY.isoformat(),
            instance=self.instance,
            asset_selection=[AssetKey(name) for name in assets] if assets and checks else None,
            raise_on_error=False,
        )

    def states(self) -> dict[str, RecordingState]:
        with contextlib.closing(Services(Environment())) as services:
            return services.ledger.states([DAY])

    def objects(self) -> dict[str, bytes]:
        client = make_s3_client(max_connections=2)
        listing = client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {item["Key"]: client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read() for item in listing}

    def refused_report(self) -> str:
        """The sentence that the step of the Global Call Type Detail report ends with."""
        with contextlib.closing(Services(Environment(backoff_s=0.01))) as services:
            bounds = day_bounds(DAY, services.settings.zone)
            pull = partial(
                pull_report,
                report="global_call_type_detail",
                day=DAY,
                period=Period(*bounds),
                source=services.source.reports,
                ledger=services.ledger,
                run_id="hostile",
                clock=services.clock,
                log=logging.getLogger("hostile"),
            )
            with pytest.raises(ExpectedError) as failed:
                pull_each("global_call_type_detail", DAY, services.settings.ringcx_account_ids, pull)
        return str(failed.value)


@pytest.fixture
def make_archiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Archiver]]:
    s3 = MemoryS3()
    s3.serve(monkeypatch)
    with DagsterInstance.ephemeral() as instance:

        def make(source: Any, **variables: str) -> Archiver:
            bucket = f"hostile-{uuid.uuid4().hex[:12]}"
            s3.create_bucket(Bucket=bucket)
            environment = {
                **s3.environment(),
                "ARCHIVE_BUCKET": bucket,
                "ARCHIVE_RETRY_MINUTES": "0",
                "DATA_DIR": str(tmp_path / "data"),
                "RINGCX_ACCOUNT_IDS": "15300002",
                "RINGCX_API_URL": f"{source.url}/api",
                "RINGCX_API_TOKEN": "aws80:api-token-secret",
                "RINGCX_MEDIA_USERNAME": "media-user",
                "RINGCX_MEDIA_PASSWORD": "media-password-secret",
                "RINGCX_MEDIA_HOSTS": f"127.0.0.1:{source.port}",
                "RINGCX_LIMIT_REPORTS": "none",
                **variables,
            }
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            return Archiver(bucket, tmp_path, monkeypatch, instance)

        yield make


@dataclass(frozen=True)
class Case:
    """A link, what its address answers with, and where that must end."""

    link: str
    answer: Callable[[socket.socket], None]
    status: Status
    reason: str | None = None


def cases(source: str, inside: str, canary: str, wav: Callable[..., bytes], speak: Speak) -> dict[str, Case]:
    """Everything hostile about a recording, by a short name."""
    good, nothing = wav(100, 2), wav(0, 2)

    def send(*parts: bytes) -> Callable[[socket.socket], None]:
        return lambda connection: connection.sendall(b"".join(parts))

    def sends(body: bytes, *headers: str, **how: Any) -> Callable[[socket.socket], None]:
        return send(speak(body, "Content-Type: audio/wav", *headers, **how))

    def link(file: str) -> str:
        return f"{source}/r?v=1&token={LINK_SECRET}&file={quote(file, safe='/')}"

    def held(file: str) -> Case:
        return Case(link(file), sends(good + file.encode("utf-8", "replace")[:2] * 2), Status.archived)

    def refused(url: str, reason: str) -> Case:
        return Case(url, sends(good), Status.rejected, f"link_refused:{reason}")

    def bad(name: str, answer: Callable[[socket.socket], None], reason: str, status: Status = Status.rejected) -> Case:
        return Case(link(f"15300002/202603/02/{name}.WAV"), answer, status, reason)

    def lies(name: str, body: bytes) -> Case:
        """HTTP frames it, and it is the same each time: all that there is."""
        return Case(link(f"15300002/202603/02/{name}.WAV"), sends(body), Status.archived)

    def redirect(name: str, target: str) -> Case:
        answer = send(speak(b"", f"Location: {target}", status="302 Found"))
        return bad(f"redirect-{name}", answer, "redirect_not_allowed")

    rf64 = (
        b"RF64\xff\xff\xff\xffWAVEds64" + (28).to_bytes(4, "little") + (1 << 40).to_bytes(8, "little") * 2 + bytes(12)
    )
    bomb = gzip.compress(good[:44] + bytes(96 << 20), 9)
    down = Status.pending
    return {
        "plain": held("15300002/202603/02/20260302100000-1.WAV"),
        "parents": held("../../../../../../etc/cron.d/evil.WAV"),
        "parents encoded": Case(
            f"{source}/r?file=%2e%2e%2f..%2F%2e%2e/tmp/x.WAV", sends(good + b"xx"), Status.archived
        ),
        "absolute": held("/etc/passwd"),
        "dots": held("15300002/202603/02/.."),
        "dot": held("15300002/202603/02/."),
        "backslashes": held("..\\..\\windows\\system32\\x.WAV"),
        "nul": held("15300002/202603/02/a.WAV\0.txt"),
        "line breaks": held("15300002/202603/02/a\r\nX-Injected: yes\r\n.WAV"),
        "right to left": held("15300002/202603/02/\u202evaw.exe"),
        "other script": held("15300002/202603/02/récord 漢字 🎧.WAV"),
        "drive": held("C:\\x.WAV"),
        "key syntax": held("15300002/202603/02/date=2099-01-01"),
        "hash lookalike": held("15300002/202603/02/sha256-0123456789abcdef0123456789abcdef.wav"),
        "long name": held("15300002/202603/02/" + "n" * 3900 + ".WAV"),
        "longer name": refused(link("15300002/" + "n" * 10_000 + ".WAV"), "too_long"),
        "credentials": refused(
            source.replace("//", "//user:pa55word@") + "/r?file=credentials.WAV", "credentials_in_url"
        ),
        "plain http": refused(f"http://{INSIDE}/r?file=plain-http.WAV", "not_https"),
        "file scheme": refused("file:///etc/passwd?file=scheme.WAV", "not_https"),
        "metadata": refused("https://169.254.169.254/latest/meta-data/?file=metadata.WAV", "host_not_allowed"),
        "other port": refused(f"{canary}/r?file=other-port.WAV", "host_not_allowed"),
        "idn host": refused("https://réc.vacd.biz.example/r?file=idn.WAV", "host_not_allowed"),
        "wide dots": refused("https://127。0。0。1.evil.example/r?file=wide.WAV", "host_not_allowed"),
        "number host": refused("https://2130706433/r?file=number.WAV", "host_not_allowed"),
        "no punycode": refused("https://xn--.inside.example/r?file=punycode.WAV", "malformed"),
        "no host": refused("https:///r?file=nohost.WAV", "malformed"),
        "name inside": Case(f"{inside}/r?file=inside.WAV", sends(good), Status.rejected, "address_not_public"),
        "redirect": redirect("host", "https://evil.example/x.WAV"),
        "redirect metadata": redirect("metadata", "http://169.254.169.254/latest/meta-data/iam/"),
        "redirect loopback": redirect("loopback", f"{canary}/x.WAV"),
        "redirect private": redirect("private", "https://10.0.0.1/x.WAV"),
        "redirect file": redirect("file", "file:///etc/passwd"),
        "redirect credentials": redirect("user", source.replace("//", "//user:pw@") + "/r?file=x"),
        "redirect round": redirect("round", "?file=15300002/202603/02/redirect-round.WAV"),
        "redirect inside": bad(
            "redirect-inside", send(speak(b"", f"Location: {inside}/x", status="302 Found")), "address_not_public"
        ),
        "redirect unreadable": bad(
            "redirect-unreadable", send(speak(b"", "Location: data:,x", status="302 Found")), "redirect_not_allowed"
        ),
        "claims 5 GB": bad("five", sends(good, "Content-Length: 5000000000", length=False), "too_large"),
        "claims 4 GB": bad("four", sends(good, "Content-Length: 4294967295", length=False), "cut_off"),
        "claims a terabyte": lies("rf64", rf64 + good[12:36] + b"data\xff\xff\xff\xff1234"),
        "bomb": bad("bomb", sends(bomb, "Content-Encoding: gzip"), "too_large"),
        "bomb in bomb": bad("bombs", sends(bomb, "Content-Encoding: gzip, gzip"), "source_unavailable", down),
        "headers": bad("headers", send(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 50_000), "source_unavailable", down),
        "two lengths": bad("two", sends(good, "Content-Length: 5"), "source_unavailable", down),
        "html": bad("html", sends(b"<html>token=" + LINK_SECRET.encode()), "html_body"),
        "nothing": bad("nothing", sends(b""), "empty_body"),
        "gone": bad("gone", sends(b"", status="404 Not Found"), "not_found", Status.missing),
        "claims more than it has": lies("cut", good[:-100]),
        "header only": bad("header", sends(nothing), "header_only"),
    }


def report_of(links: list[str]) -> bytes:
    """The date's Agent Segment Metadata report, with a caller's number that no log may show."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["UII", "Session ID", "ANI", "Start Dts", "Duration", "date", "Segment Recording URL"])
    for n, link in enumerate(links):
        writer.writerow([f"'20260302{n:06}0132", "2", CALLER, "03/02/2026 10:00:00", "00:00:02", "=cmd()", link])
    return text.getvalue().encode()


@dataclass
class HostileSource:
    """Answers reports and recordings; `links` is what the report says."""

    speak: Speak
    answers: dict[str, Callable[[socket.socket], None]]
    links: list[str]

    def __call__(self, asked: Any, connection: socket.socket) -> None:
        if asked.method == "POST":
            outbound = b"Outbound" in asked.body
            agents = b"CASPER" in asked.body
            body = report_of([] if outbound else self.links) if agents else b"[]"
            connection.sendall(self.speak(body))
        else:
            file = unquote(asked.target.partition("file=")[2])  # `%2e` may be sent as `%2E`
            self.answers.get(file, lambda _: None)(connection)


@pytest.mark.slow
def test_every_hostile_recording_ends_in_a_state_and_takes_nothing_with_it(  # noqa: PLR0917 - fixtures
    make_archiver: Callable[..., Archiver],
    serve: Callable[[Answer], RawServer],
    speak: Speak,
    wav: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    canary = serve(lambda _, connection: connection.sendall(speak(wav(100, 2))))
    answering = HostileSource(speak, {}, [])
    source = serve(answering)
    inside = f"https://{INSIDE}:{canary.port}"
    every = cases(source.url, inside, canary.url, wav, speak)
    answering.links = [case.link for case in every.values()]
    answering.answers = {unquote(case.link.partition("file=")[2]): case.answer for case in every.values()}
    resolve = socket.getaddrinfo
    leads_inside = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", canary.port))]
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: leads_inside if host == INSIDE else resolve(host, *rest, **more),
    )
    hosts = f"127.0.0.1:{source.port},*.inside.example:{canary.port}"
    archiver = make_archiver(source, RINGCX_MEDIA_HOSTS=hosts)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}

    began = time.monotonic()
    with caplog.at_level(logging.DEBUG):
        result = archiver.run_until_final()
    took = time.monotonic() - began

    by_link = {state.link: state for state in archiver.states().values()}
    ended = {
        name: (str(by_link[link].status), by_link[link].reason)
        for name, case in every.items()
        if (link := "".join(case.link.split())) in by_link
    }
    assert ended == {name: (str(case.status), case.reason) for name, case in every.items()}
    assert result.success
    assert took < 120

    objects = archiver.objects()
    recordings = {key: body for key, body in objects.items() if key.startswith("recordings/")}
    states = {state.key: state for state in by_link.values() if state.status is Status.archived}
    assert recordings.keys() == states.keys()
    assert all(hashlib.sha256(body).hexdigest() == states[key].sha256 for key, body in recordings.items())
    folder = f"recordings/date={DAY}/account_id=15300002/layout=stereo/"
    assert all(key.startswith(folder) and "/" not in key.removeprefix(folder) for key in recordings)
    folders = {key.partition("/")[0] for key in objects}
    assert folders <= {"recordings", "manifests", "witnesses", "catalog", "calls", "ledger", "probes", "quarantine"}

    assert canary.connections == 0
    authorized = {name for asked in source.asked for name in ("authorization", "x-auth-token") if name in asked.headers}
    assert authorized == {"authorization", "x-auth-token"}
    assert not any("x-injected" in asked.headers for asked in source.asked)

    left = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(tmp_path / "data") for path in left)
    everything = "\n".join([caplog.text, *(event.message or "" for event in result.all_events), metadata_of(result)])
    for secret in (LINK_SECRET, "pa55word", "api-token-secret", "media-password-secret", CALLER, "=cmd()"):
        assert secret not in everything


def metadata_of(result: ExecuteInProcessResult) -> str:
    return json.dumps(
        [
            {name: str(value.value) for name, value in event.materialization.metadata.items()}
            for event in result.all_events
            if event.is_step_materialization
        ]
    )


@pytest.mark.slow
def test_a_link_that_the_settings_no_longer_allow_stops_no_other(
    make_archiver: Callable[..., Archiver],
    serve: Callable[[Answer], RawServer],
    speak: Speak,
    wav: Callable[..., bytes],
) -> None:
    good = speak(wav(100, 2))
    answering = HostileSource(speak, {}, [])
    first, second = serve(answering), serve(lambda _, connection: connection.sendall(good))
    answering.links = [f"{first.url}/r?file=1.WAV", f"{second.url}/r?file=2.WAV"]
    answering.answers = {"1.WAV": lambda connection: connection.sendall(good)}
    archiver = make_archiver(first, RINGCX_MEDIA_HOSTS=f"127.0.0.1:{first.port},127.0.0.1:{second.port}")
    assert archiver.run("agent_segment_metadata", "global_call_type_detail", "recording_links").success
    archiver.monkeypatch.setenv("RINGCX_MEDIA_HOSTS", f"127.0.0.1:{first.port}")
    assert archiver.run_until_final("recordings", "daily_manifest").success
    assert {key.rpartition("/")[2]: (str(state.status), state.reason) for key, state in archiver.states().items()} == {
        "1.WAV": ("archived", None),
        "2.WAV": ("rejected", "link_refused:host_not_allowed"),
    }
    assert second.connections == 0


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (gzip.compress(bytes(96 << 20), 9), ["Content-Encoding: gzip"], "unpacks to hundreds of times its size"),
        (gzip.compress(gzip.compress(b"[]")), ["Content-Encoding: gzip, gzip"], "is not available now"),
        (b'[{"uii":"1","recordingUrl":"","x":' + b"[" * 800 + b"]" * 800 + b"}]", [], "nested too deep"),
        (b'[{"uii":"1","recordingUrl":"","x":' + b"[" * 99_999, [], "nested too deep"),
        (b"<html>" + CALLER.encode(), [], "HTML"),
        (b'{"access_token":"' + LINK_SECRET.encode() + b'"}', [], "a JSON object"),
        (b"\0" * 1000, [], "is not the whole report"),
        (b'uii,recording_url\n1,"' + LINK_SECRET.encode(), [], "a quote is still open"),
    ],
    ids=["bomb", "bomb in bomb", "deep", "deeper", "html", "error", "nuls", "open quote"],
)
def test_a_hostile_report_fails_its_step_with_a_sentence_and_leaves_nothing(  # noqa: PLR0917 - fixtures
    make_archiver: Callable[..., Archiver],
    serve: Callable[[Answer], RawServer],
    speak: Speak,
    body: bytes,
    headers: list[str],
    message: str,
) -> None:
    archiver = make_archiver(serve(lambda _, connection: connection.sendall(speak(body, *headers))))
    sentence = archiver.refused_report()
    assert message in sentence
    assert not any(secret in sentence for secret in (LINK_SECRET, CALLER, "api-token-secret"))
    assert archiver.objects() == {}

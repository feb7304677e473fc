"""`ringcx-archive verify` and the restore drill: whatever is done to the archive by hand is named.

One archive is made for real and copied for each test, which then tampers with its copy through S3.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pytest
from botocore.response import StreamingBody
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from dagster import AssetKey, DagsterInstance, DagsterRunStatus, JobDefinition

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageUnavailable
from pipelines.archive.proof.attestation import read_attestations
from pipelines.archive.proof.manifest import canonical_json
from pipelines.archive.proof.merkle import MerkleTree, leaf_hash
from pipelines.cli.verify import Screen
from pipelines.compliance.access_log import Access, AccessLog
from pipelines.definitions import build_defs
from pipelines.ledger.files import S3Files
from pipelines.ledger.states import RecordingState, Status
from pipelines.ledger.store import Ledger
from pipelines.settings import VerifySettings
from pipelines.steps.check.verdict import EXIT_CODES
from pipelines.steps.fetch import fetcher
from pipelines.steps.link.rows import AGENT, GLOBAL
from pipelines.steps.seal import seal_day as seal
from pipelines.steps.verify import ledger_parts
from sandbox.config import Limits, SandboxConfig
from sandbox.faults import Faults, Where
from tests.commands import an_hour_later, run
from tests.copies import Copies, copies_of_an_archive

ARCHIVE_PREFIX = "vault/"
TODAY = datetime.now(UTC).date()
DAYS = [TODAY - timedelta(days=back) for back in (4, 3, 2)]
FIRST, MIDDLE, LAST = DAYS


@dataclass
class Copy:
    """One test's own copy."""

    client: Any
    bucket: str
    folder: Path
    capsys: pytest.CaptureFixture[str]
    result: dict[str, Any] = field(default_factory=dict)
    out: str = ""
    err: str = ""

    def keys(self, under: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=ARCHIVE_PREFIX + under)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def get(self, key: str) -> bytes:
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def put(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)

    def ledger(self) -> Ledger:
        return Ledger(S3Files(self.client, self.bucket, f"{ARCHIVE_PREFIX}ledger"), clock=lambda: datetime.now(UTC))

    def held(self, day: date) -> list[RecordingState]:
        states = self.ledger().states([day]).values()
        return [one for one in states if one.status is Status.archived]

    def manifests(self, day: date) -> list[str]:
        found = [key for key in self.keys(f"manifests/date={day}/") if key.endswith(".json")]
        return sorted(found, key=lambda key: int(re.findall(r"\d+", key)[-1]))

    def verify(
        self,
        *options: str,
        first: date = FIRST,
        last: date = LAST,
        s3: Any = None,
        clock: Callable[[], datetime] = an_hour_later,
    ) -> int:
        report = self.folder / "verify.json"
        arguments = ["--from", str(first), "--to", str(last), "--json", str(report), *options]
        code = run("verify", arguments, self.client if s3 is None else s3, clock=clock)
        self.out, self.err = self.capsys.readouterr()
        self.result = json.loads(report.read_text()) if report.exists() else {}
        return code

    def everything_under(self, prefix: str) -> list[str]:
        return sorted(key for key, _ in self.everything() if key.startswith(prefix))

    def everything(self) -> set[tuple[str, str]]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {(item["Key"], item["ETag"]) for page in pages for item in page.get("Contents", [])}

    def doubts(self, *options: str, day: date | None = None, s3: Any = None) -> set[tuple[str, str, str]]:
        """(date, kind, subject) of each doubt, each with a sentence; the first fifty are on the screen as well.

        Of all dates, or of one.
        """
        code = self.verify(*options, first=day or FIRST, last=day or LAST, s3=s3)
        assert code == (1 if self.result["doubts"] else 0)
        for of in {one["date"] for one in self.result["doubts"]}:
            of_day = [one for one in self.result["doubts"] if one["date"] == of]
            for one in of_day[:50]:
                assert f"  {of or 'no date   '}  {one['kind']}: {one['sentence']}\n" in self.out
            assert ("more, all of them in the file" in self.out) >= (len(of_day) > 50)
        return {(one["date"], one["kind"], one["subject"]) for one in self.result["doubts"]}

    def sentences(self, subject: str) -> str:
        return " ".join(one["sentence"] for one in self.result["doubts"] if one["subject"] == subject)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copies]:
    """A run of each date and one more, since late links make a second manifest; some recordings cannot be fetched."""
    faults = Faults(
        seed=5, late_links=Where(share=0.2, first=1), forbidden=Where(share=0.06), not_found=Where(share=0.06)
    )
    config = SandboxConfig(
        same_around=TODAY,
        calls_per_day=(6, 8),
        talk_seconds=(1, 2),
        limits=Limits(reports="none", exchange="none"),
        faults=faults,
    )

    def archive(job: JobDefinition, instance: DagsterInstance) -> None:
        for day in (*DAYS, MIDDLE):
            assert job.execute_in_process(partition_key=str(day), instance=instance).success

    settings = {"ARCHIVE_PREFIX": ARCHIVE_PREFIX, "ARCHIVE_RETRY_MINUTES": "0"}
    with copies_of_an_archive(tmp_path_factory, config, archive, **settings) as copies:
        yield copies


@dataclass
class Rotten:
    """An S3 client of which one object's last byte has turned, and whose listings and headers do not know it."""

    client: Any
    key: str | None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def get_object(self, **query: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get_object(**query)
        if query["Key"] == self.key:
            body = answer["Body"].read()
            answer["Body"] = StreamingBody(io.BytesIO(body[:-1] + bytes([body[-1] ^ 1])), len(body))
        return answer


@pytest.fixture
def copy(sample: Copies, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Copy:
    return Copy(sample.client, sample.take(monkeypatch), tmp_path, capsys)


def test_a_clean_archive_is_proved_in_both_forms_and_nothing_is_written(copy: Copy) -> None:
    before = copy.everything()
    assert copy.doubts() == set()
    assert copy.result["good"]
    assert copy.result["notes"] == ["Signatures were not checked: set ARCHIVE_VERIFY_KEY_FILE to check them."]
    assert copy.result["sum"]["read"] == 0
    assert "No discrepancy: the archive of 3 dates is as it was sealed" in copy.out
    held = sum(len(copy.held(day)) for day in DAYS)
    assert held > 20
    assert copy.doubts("--read-data") == set()
    assert copy.result["sum"]["held"] == copy.result["sum"]["read"] == held
    assert [one["date"] for one in copy.result["dates"]] == [str(day) for day in DAYS]
    assert sum(one["lost"] + one["pending"] for one in copy.result["dates"]) > 0
    assert max(one["manifest"] for one in copy.result["dates"]) > 1
    for day in DAYS:
        assert re.search(rf"^{day} .* as sealed$", copy.out, re.MULTILINE)
    assert copy.err == ""
    assert copy.everything() == before


def test_a_share_is_chosen_by_a_printed_seed_that_chooses_it_again(copy: Copy) -> None:
    assert copy.verify("--read-data", "40%") == 0
    first = {one["date"]: one["read"] for one in copy.result["dates"]}
    seed = copy.result["read_data"]["seed"]
    assert f"--seed {seed}" in copy.out
    assert 0 < sum(first.values()) < copy.result["sum"]["held"]
    assert copy.verify("--read-data", "40%", "--seed", seed) == 0
    assert {one["date"]: one["read"] for one in copy.result["dates"]} == first


def test_an_altered_object_is_named_whether_its_length_changed_or_not(copy: Copy) -> None:
    longer, same = copy.held(FIRST)[0], copy.held(LAST)[1]
    copy.put(longer.key, copy.get(longer.key) + b"\0\0")
    body = bytearray(copy.get(same.key))
    body[-1] ^= 1
    copy.put(same.key, bytes(body))
    assert copy.doubts() == {
        (str(FIRST), "object_altered", longer.key),
        (str(LAST), "object_altered", same.key),
    }
    assert hashlib.sha256(body).hexdigest() in copy.sentences(same.key)
    assert same.recording_id in copy.sentences(same.key)


def test_an_entry_of_the_access_log_that_is_altered_or_removed_after_sealing_is_named(copy: Copy) -> None:
    bucket = Bucket(copy.client, copy.bucket, ARCHIVE_PREFIX)
    log, at = AccessLog(bucket), datetime(FIRST.year, FIRST.month, FIRST.day, 12, tzinfo=UTC)
    entry = Access(at=at, user="ava", address="203.0.113.9", action="search")
    kept, altered, removed = (log.record(entry) for _ in range(3))
    assert copy.doubts() == set()
    settings = VerifySettings(archive_bucket=copy.bucket, archive_prefix=ARCHIVE_PREFIX)
    now = datetime.now(UTC)
    seal.seal_day(seal.Stores(bucket, copy.ledger(), settings), FIRST, now=now, run_id="again")
    later = log.record(entry)
    assert copy.doubts() == set()
    copy.put(altered, copy.get(altered).replace(b"ava", b"eve"))
    copy.delete(removed)
    copy.delete(later)
    assert copy.doubts() == {
        (str(FIRST), "access_entry_altered", altered),
        (str(FIRST), "access_entry_removed", removed),
    }
    assert copy.get(kept)


def test_any_sealing_attests_the_access_log_of_the_last_three_utc_days(copy: Copy) -> None:
    bucket = Bucket(copy.client, copy.bucket, ARCHIVE_PREFIX)
    now = datetime(FIRST.year, FIRST.month, FIRST.day, 12, tzinfo=UTC) + timedelta(days=40)
    entry = {"user": "ava", "address": "203.0.113.9", "action": "search"}
    times = [now - timedelta(days=before) for before in range(5)]
    for at in times:
        AccessLog(bucket).record(Access(at=at, **entry))  # type: ignore[arg-type]
    settings = VerifySettings(archive_bucket=copy.bucket, archive_prefix=ARCHIVE_PREFIX)
    seal.seal_day(seal.Stores(bucket, copy.ledger(), settings), FIRST, now=now, run_id="again")
    attested = [len(read_attestations(bucket, seal.ACCESS, at.date())[0]) for at in times]
    assert attested == [0, 1, 1, 1, 0]


def test_swapped_objects_are_both_named_with_whose_bytes_they_hold(copy: Copy) -> None:
    one, two = copy.held(MIDDLE)[:2]
    first, second = copy.get(one.key), copy.get(two.key)
    copy.put(one.key, second)
    copy.put(two.key, first)
    assert copy.doubts() == {(str(MIDDLE), "object_altered", one.key), (str(MIDDLE), "object_altered", two.key)}
    assert f"they are the bytes of {two.recording_id}" in copy.sentences(one.key)
    assert f"they are the bytes of {one.recording_id}" in copy.sentences(two.key)


def test_deleted_and_added_objects_are_named(copy: Copy) -> None:
    gone = copy.held(FIRST)[-1]
    copy.delete(gone.key)
    added = [f"{ARCHIVE_PREFIX}recordings/date={MIDDLE}/{name}" for name in ("account_id=1/layout=mono/x.WAV", "y")]
    for key in added:
        copy.put(key, b"RIFF")
    assert copy.doubts() == {
        (str(FIRST), "object_missing", gone.key),
        *((str(MIDDLE), "object_stray", key) for key in added),
    }


def test_a_renamed_object_is_missing_and_a_stray(copy: Copy) -> None:
    one = copy.held(LAST)[0]
    moved = one.key.replace("date=", "date=").replace(".WAV", "-1.WAV")
    copy.put(moved, copy.get(one.key))
    copy.delete(one.key)
    assert copy.doubts() == {(str(LAST), "object_missing", one.key), (str(LAST), "object_stray", moved)}


def test_every_ledger_part_that_is_removed_is_named(copy: Copy) -> None:
    parts = [key for day in DAYS for key in copy.keys("ledger/") if f"date={day}/" in key]
    assert len(parts) >= 3 * 6
    kinds = {key.split("/")[2] for key in parts}
    assert kinds == {"recording_states", "report_pulls", "report_rows"}
    for key in parts:
        copy.delete(key)
    named = {subject for _, kind, subject in copy.doubts() if kind == "ledger_part_removed"}
    assert named == {key.removeprefix(f"{ARCHIVE_PREFIX}ledger/") for key in parts}


@pytest.mark.parametrize("kind", ["recording_states", "report_pulls", "report_rows"])
def test_one_removed_ledger_part_is_named(copy: Copy, kind: str) -> None:
    key = [one for one in copy.keys(f"ledger/{kind}/") if f"date={MIDDLE}/" in one][-1]
    copy.delete(key)
    name = key.removeprefix(f"{ARCHIVE_PREFIX}ledger/")
    assert (str(MIDDLE), "ledger_part_removed", name) in copy.doubts()
    assert {one["date"] for one in copy.result["doubts"]} == {str(MIDDLE)}


def test_an_altered_and_an_added_ledger_part_are_named(copy: Copy) -> None:
    states = [key for key in copy.keys("ledger/recording_states/") if f"date={FIRST}/" in key]
    broken = states[0]
    copy.put(broken, copy.get(broken)[:-1])
    pulls = [key for key in copy.keys("ledger/report_pulls/") if f"date={MIDDLE}/" in key]
    added = pulls[0].replace(pulls[0].rpartition("/")[2], "01JC00000000000000000000ZZ.parquet")
    copy.put(added, copy.get(pulls[0]))
    found = copy.doubts()
    assert (str(FIRST), "ledger_part_altered", broken.removeprefix(f"{ARCHIVE_PREFIX}ledger/")) in found
    assert (str(MIDDLE), "unwitnessed", added.removeprefix(f"{ARCHIVE_PREFIX}ledger/")) in found


def test_a_ledger_that_says_something_else_is_named_by_recording(copy: Copy) -> None:
    one = copy.held(LAST)[0]
    for key in copy.keys("ledger/recording_states/"):
        if f"date={LAST}/" in key:
            copy.delete(key)
    found = copy.doubts()
    assert {subject for _, kind, subject in found if kind == "ledger_lacks"} >= {one.recording_id}


@pytest.mark.parametrize("which", [0, -1])
def test_a_removed_manifest_is_named_first_or_last(copy: Copy, which: int) -> None:
    day = MIDDLE
    key = copy.manifests(day)[which]
    copy.delete(key)
    assert (str(day), "manifest_removed", key) in copy.doubts()
    assert {one["date"] for one in copy.result["doubts"]} == {str(day)}


def test_all_manifests_of_a_date_removed_is_named(copy: Copy) -> None:
    keys = copy.manifests(MIDDLE)
    for key in keys:
        copy.delete(key)
    found = copy.doubts()
    assert {(str(MIDDLE), "manifest_removed", key) for key in keys} <= found
    assert (str(MIDDLE), "never_sealed", str(MIDDLE)) in found


def edited(body: bytes, change: Callable[[dict[str, Any]], None], *, hashed: bool) -> bytes:
    document = json.loads(body)
    change(document)
    if hashed:
        content = {name: document[name] for name in ("date", "entries", "totals")}
        document["content_sha256"] = hashlib.sha256(canonical_json(content)).hexdigest()
        leaves = [leaf_hash(canonical_json(entry).rstrip(b"\n")) for entry in document["entries"]]
        document["merkle_root"] = MerkleTree(leaves).root
    return canonical_json(document)


EDITS: dict[str, Callable[[dict[str, Any]], None]] = {
    "an entry dropped": lambda one: one["entries"].pop(),
    "an entry added": lambda one: one["entries"].append({**one["entries"][-1], "recording_id": "~"}),
    "a size": lambda one: one["entries"][0].update(size=1),
    "a state": lambda one: one["entries"][0].update(status="missing", reason="not_found"),
    "a total": lambda one: one["totals"].update(archived=10_000),
    "the time": lambda one: one.update(sealed_at="2026-01-01T00:00:00.000000+00:00"),
    "the run": lambda one: one.update(run_id="forged"),
    "the chain": lambda one: one.update(previous_sha256="0" * 64),
    "the day before": lambda one: one.update(previous_day={"date": str(FIRST), "number": 7, "sha256": "0" * 64}),
    "a hostile chain": lambda one: one.update(previous_day={"date": [], "number": "x"}),
    "ids that are numbers": lambda one: [entry.update(recording_id=at) for at, entry in enumerate(one["entries"])],
    "entries that are no objects": lambda one: one.update(entries=[1]),
    "a size in words": lambda one: one["entries"][0].update(size="much"),
    "nonsense": lambda one: one.update(entries=[{"recording_id": "\ud800", "status": ["archived"], "size": 1 << 80}]),
}


@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
def test_every_edit_of_a_manifest_is_named(copy: Copy, which: int) -> None:
    key = copy.manifests(MIDDLE)[which]
    body = copy.get(key)
    plain = {"a size", "the chain", "nonsense"}
    unnoticed = []
    for name, edit in EDITS.items():
        # With its own hash made to fit the content, as somebody would who knows the format; three also plainly.
        for hashed in (True, False) if name in plain else (True,):
            copy.put(key, edited(body, edit, hashed=hashed))
            code = run("verify", ["--from", str(MIDDLE), "--to", str(MIDDLE)], copy.client, clock=an_hour_later)
            said = copy.capsys.readouterr().out
            if code != 1 or f"  {MIDDLE}  manifest_altered: {key} " not in said:
                unnoticed.append((name, hashed, code, said))
    assert unnoticed == []


def test_renumbered_and_swapped_manifests_are_named(copy: Copy) -> None:
    day = MIDDLE
    first, second = copy.manifests(day)[:2]
    one, two = copy.get(first), copy.get(second)
    copy.put(first, two)
    copy.put(second, one)
    found = copy.doubts()
    assert {(str(day), "manifest_altered", first), (str(day), "manifest_altered", second)} <= found
    copy.put(first, one)
    copy.put(second, two)
    last = copy.manifests(day)[-1]
    beyond = last.replace(f"-{len(copy.manifests(day))}.json", "-9.json")
    copy.put(beyond, copy.get(last))
    assert (str(day), "manifest_altered", beyond) in copy.doubts()


def test_a_manifest_removed_with_its_attestation_is_still_named_by_the_next_day(copy: Copy) -> None:
    for key in (*copy.manifests(FIRST), *copy.keys(f"witnesses/manifests/date={FIRST}/")):
        copy.delete(key)
    named = json.loads(copy.get(copy.manifests(MIDDLE)[-1]))["previous_day"]["number"]
    key = f"{ARCHIVE_PREFIX}manifests/date={FIRST}/manifest-{named}.json"
    assert (str(FIRST), "manifest_removed", key) in copy.doubts()
    # From outside the range too: the day after the last one asked for has its say.
    assert copy.verify(first=FIRST, last=FIRST) == 1
    assert key in {one["subject"] for one in copy.result["doubts"]}


def test_removed_and_edited_attestations_are_named(copy: Copy) -> None:
    gone = copy.keys(f"witnesses/recording_states/date={FIRST}/")
    for key in gone:
        copy.delete(key)
    bad = copy.keys(f"witnesses/manifests/date={LAST}/")[0]
    copy.put(bad, b"{}")
    found = copy.doubts()
    assert {(day, kind) for day, kind, _ in found} >= {(str(FIRST), "unwitnessed"), (str(LAST), "witness_altered")}
    assert (str(LAST), "witness_altered", bad) in found


def test_dates_never_pulled_or_pulled_in_part_are_named(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, sample: Copies
) -> None:
    before = FIRST - timedelta(days=30)
    assert copy.verify(first=before, last=before) == 1
    assert [(one["kind"], one["date"]) for one in copy.result["doubts"]] == [("never_pulled", str(before))]
    assert [(one["verdict"], one["found"]) for one in copy.result["dates"]] == [("unknown", None)]
    monkeypatch.setenv("RINGCX_ACCOUNT_IDS", f"{sample.variables['RINGCX_ACCOUNT_IDS']},15300009")
    kinds = copy.doubts()
    assert {one["sentence"] for one in copy.result["doubts"] if str(FIRST) == one["date"]} == {
        f"{report} of account 15300009 was never pulled; run {FIRST}" for report in (AGENT, GLOBAL)
    }
    assert {kind for _, kind, _ in kinds} == {"never_pulled"}
    assert len(kinds) == 6
    assert all("15300009" in subject for _, _, subject in kinds)
    monkeypatch.setenv("RINGCX_ACCOUNT_IDS", sample.variables["RINGCX_ACCOUNT_IDS"])
    # In the local days of a zone further west these pulls end hours before the day does.
    monkeypatch.setenv("ARCHIVE_TIMEZONE", "US/Hawaii")
    assert {kind for _, kind, _ in copy.doubts()} == {"partly_pulled"}
    assert all(one["sentence"].endswith(f"; run {one['date']} again") for one in copy.result["doubts"])


def test_a_date_sealed_before_its_last_change_is_stale(copy: Copy) -> None:
    ledger = copy.ledger()
    one = copy.held(MIDDLE)[0]
    later = datetime.now(UTC) + timedelta(minutes=1)
    changed = {name: getattr(one, name) for name in RecordingState.__slots__} | {
        "epoch": 1,
        "written_at": later,
        "warnings": ("duration_differs",),
    }
    ledger.append_states([RecordingState(**changed)])
    assert {kind for _, kind, _ in copy.doubts()} == {"stale", "unwitnessed"}
    assert "run the date again" in copy.sentences(copy.manifests(MIDDLE)[-1])


def test_reading_the_data_finds_what_the_cheap_form_cannot(copy: Copy) -> None:
    # A disk that rots does not tell its listing: the server here still gives the old ETag and length.
    one = copy.held(LAST)[0]
    good = copy.get(one.key)
    s3 = Rotten(copy.client, one.key)
    assert copy.doubts(day=LAST, s3=s3) == set()
    assert copy.doubts("--read-data", day=LAST, s3=s3) == {(str(LAST), "object_altered", one.key)}
    assert hashlib.sha256(good).hexdigest() in copy.sentences(one.key)


def test_strays_that_belong_to_no_date_are_named_and_end_with_1(copy: Copy) -> None:
    held = copy.held(MIDDLE)[0].key or ""
    stray = [
        "backup.tar",
        "recordings/loose.WAV",
        "recordings/date=2026-13-45/x.WAV",
        "conflicts/loose.WAV",
        "quarantine/old/x.WAV",
        f"conflicts/date={MIDDLE}/account_id=1/layout=mono/0123456789abcdef-none.WAV",
        held.removeprefix(ARCHIVE_PREFIX).replace("recordings/", "conflicts/", 1).rpartition("/")[0] + "/made-up.WAV",
    ]
    for key in stray:
        copy.put(ARCHIVE_PREFIX + key, b"x")
    copy.put("elsewhere/not-ours", b"x")
    copy.put(f"{ARCHIVE_PREFIX}events/date={MIDDLE}/x.jsonl", b"x")
    copy.put(f"{ARCHIVE_PREFIX}probes/connection-x", b"x")
    found = copy.doubts()
    assert {kind for _, kind, _ in found} == {"object_stray"}
    assert {subject.removeprefix(ARCHIVE_PREFIX) for _, _, subject in found} == {
        *stray[:2],
        "recordings/date=2026-13-45/",
        "conflicts/loose.WAV",
        "quarantine/old/",
        *stray[5:],
    }
    assert {date for date, _, _ in found} == {"", str(MIDDLE)}
    assert "(5 of these without a date) on 1 of 3 dates" in copy.out


def test_what_a_run_under_way_has_put_is_arriving_and_a_stray_of_the_same_age_is_a_discrepancy(
    world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    it = world(faults=Faults(late_links=Where(share=0.4, first=1)), ARCHIVE_PREFIX=ARCHIVE_PREFIX)
    watched, day, of_day = Copy(it.s3, it.bucket, tmp_path, capsys), LAST, f"{ARCHIVE_PREFIX}recordings/date={LAST}/"
    seen: list[tuple[int, set[str], set[str]]] = []

    def look(clock: Callable[[], datetime] = it.clock) -> None:
        code = watched.verify(first=day, last=day, clock=clock)
        assert all("verify again after" in one["sentence"] for one in watched.result["arriving"])
        arriving, doubts = ({one["subject"] for one in watched.result[name]} for name in ("arriving", "doubts"))
        seen.append((code, arriving, doubts))

    def look_before(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def in_the_middle_of_a_run(*arguments: Any, **options: Any) -> Any:
            look()
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, in_the_middle_of_a_run)

    look_before(fetcher.Fetcher, "_write")  # objects are stored, and no state line says so
    look_before(seal, "seal")  # states are written, and not sealed
    look_before(seal, "_attest")  # sealed, and not attested
    for _ in range(2):
        seen.clear()
        before = it.objects(of_day).keys()
        assert it.run(day).success
        new = it.objects(of_day).keys() - before
        assert len(new) > 2
        assert [(code, doubts) for code, _, doubts in seen[:3]] == [(0, set())] * 3
        assert seen[0][1] >= new
        assert all(arriving for _, arriving, _ in seen[:3])
        assert (watched.result["good"], watched.result["verdict"] in {"waiting", "unknown"}) == (True, True)
        assert f"as sealed, {watched.result['sum']['arriving']} arriving" in watched.out
        look()
        assert seen[-1] == (0, set(), set())
    stray = f"{ARCHIVE_PREFIX}recordings/date={day}/account_id=1/layout=mono/somebody.WAV"
    watched.put(stray, b"RIFF")
    look()
    assert seen[-1] == (1, set(), {stray})


def test_what_a_killed_run_stored_is_arriving_only_as_long_as_a_run_may_write_it_down(
    world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    it = world(ARCHIVE_PREFIX=ARCHIVE_PREFIX)
    watched = Copy(it.s3, it.bucket, tmp_path, capsys)
    monkeypatch.setattr(Ledger, "append_states", _only_pending(Ledger.append_states))
    it.run(LAST)
    stored = set(it.objects(f"{ARCHIVE_PREFIX}recordings/date={LAST}/"))
    assert len(stored) > 5
    assert watched.verify(first=LAST, last=LAST, clock=it.clock) == 0
    assert stored <= {one["subject"] for one in watched.result["arriving"]}
    assert watched.verify(first=LAST, last=LAST) == 1
    assert stored <= {one["subject"] for one in watched.result["doubts"] if "run the date again" in one["sentence"]}
    assert watched.result["arriving"] == []


def _only_pending(append: Callable[..., None]) -> Callable[..., None]:
    def append_or_die(ledger: Ledger, states: list[RecordingState]) -> None:
        states = list(states)
        if any(one.status is Status.archived for one in states):
            raise SystemExit
        append(ledger, states)

    return append_or_die


def test_what_was_kept_apart_from_a_recording_is_no_stray(copy: Copy) -> None:
    one = copy.held(MIDDLE)[0]
    folder, _, name = (one.key or "").replace("/recordings/", "/conflicts/").rpartition("/")
    copy.put(f"{folder}/{hashlib.sha256(b'other bytes').hexdigest()[:16]}-{name}", b"other bytes")
    assert copy.doubts() == set()


def test_a_catalog_that_is_gone_altered_or_another_dates_is_named(copy: Copy) -> None:
    first, middle, last = (f"{ARCHIVE_PREFIX}catalog/date={day}/recordings.parquet" for day in DAYS)
    body = copy.get(last)
    copy.delete(first)
    copy.put(middle, body)
    copy.put(last, body[:-1] + b"X")
    assert copy.doubts() == {
        (str(day), "catalog_stale", key) for day, key in zip(DAYS, (first, middle, last), strict=True)
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--from", "2026-11-20"], "--to"),
        (["--from", "2026-02-30", "--to", "2026-11-20"], "Invalid value for '--from': 2026-02-30 is not a valid date"),
        (["--from", "20.11.2026", "--to", "2026-11-20"], "write it like 2026-11-18"),
        (["--from", "2026-11-20", "--to", "2026-11-19"], "earlier date first"),
        (["--from", "2026-11-20", "--to", "2999-01-01"], "is in the future"),
        (["--from", "2026-11-20", "--to", "2026-11-20", "--read-data", "0%"], "above 0%"),
        (["--from", "2026-11-20", "--to", "2026-11-20", "--read-data", "lots"], "above 0%"),
        (
            ["--from", "2026-11-20", "--to", "2026-11-20", "--json", "no/such/folder/x.json"],
            "there is no folder no/such/folder",
        ),
        (["--from", "2026-11-20", "--to", "2026-11-20", "--twice"], "--twice"),
    ],
)
def test_wrong_usage_is_one_sentence_and_code_2(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARCHIVE_BUCKET", "archive")
    assert run("verify", arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert said.err.count("\n") == 1


def test_settings_that_are_wrong_are_one_sentence_and_code_2(
    rclone: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rclone.client.create_bucket(Bucket="settings-of-verify")
    for name, value in (rclone.environment | {"ARCHIVE_BUCKET": "settings-of-verify"}).items():
        monkeypatch.setenv(name, value)
    options = ["--from", str(FIRST), "--to", str(FIRST)]
    for name, value in (
        ("ARCHIVE_BUCKET", ""),
        ("ARCHIVE_BUCKET", "no-such-bucket"),
        ("ARCHIVE_VERIFY_KEY_FILE", "no-such-file"),
        ("AWS_SECRET_ACCESS_KEY", "wrong-secret-wrong-secret-wrong-secret-00"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert run("verify", options) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "wrong-secret" not in said


def test_no_log_in_to_the_source_is_needed(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RINGCX_ACCOUNT_IDS", "RINGCENTRAL_JWT", "RINGCENTRAL_CLIENT_ID", "RINGCENTRAL_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    assert copy.doubts() == set()


def test_dates_run_backwards_are_proved_since_a_run_seals_the_next_day_again(
    world: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    scout = world()
    for back in range(3, 12):
        before, day = TODAY - timedelta(days=back), TODAY - timedelta(days=back - 1)
        assert scout.run(
            before, select=["agent_segment_metadata", "global_call_type_detail", "recording_links"]
        ).success
        if scout.states(day):  # a leg that begins after midnight is found by the day before
            break
    assert scout.states(day)
    # Without its links at first, the day itself is sealed empty: only the day before then learns of that leg.
    it = world(faults=Faults(late_links=Where(share=1.0, first=1)))
    assert it.run(day).success
    assert it.run(before).success
    manifests = [key for key in it.objects("manifests/") if f"date={day}/" in key]
    assert len(manifests) == 2
    assert run("verify", ["--from", str(before), "--to", str(day)]) == 0, capsys.readouterr().out


def test_a_terminal_sees_progress_that_a_file_does_not_get(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for live, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", live)
        screen = Screen()
        screen.progress(LAST, 50, 1000)
        screen.line("done")
        assert (f"{LAST}  50 of 1,000 recordings" in live.getvalue()) is shown
        assert capsys.readouterr().out == "done\n"


# --- signatures -------------------------------------------------------------------------------------------------------


def pem(key: Ed25519PrivateKey) -> tuple[bytes, bytes]:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sealed_again(instance: DagsterInstance, *days: date) -> bool:
    job = build_defs().resolve_job_def("archive_day")
    return all(
        job.execute_in_process(
            partition_key=str(day),
            instance=instance,
            asset_selection=[AssetKey("daily_manifest")],
            raise_on_error=False,
        ).success
        for day in days
    )


def test_signatures_by_a_key_file_are_made_for_what_is_unsigned_and_proved(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.generate()
    private, public = pem(key)
    (copy.folder / "key.pem").write_bytes(private)
    (copy.folder / "public.pem").write_bytes(pem(Ed25519PrivateKey.generate())[1] + public)
    monkeypatch.setenv("ARCHIVE_SIGNING_KEY_FILE", str(copy.folder / "key.pem"))
    found = copy.doubts()
    assert {kind for _, kind, _ in found} == {"signature_missing"}
    assert len(found) == 3
    with DagsterInstance.ephemeral() as instance:
        assert sealed_again(instance, FIRST)
    assert copy.doubts(day=FIRST) == set()
    monkeypatch.delenv("ARCHIVE_SIGNING_KEY_FILE")
    monkeypatch.setenv("ARCHIVE_VERIFY_KEY_FILE", str(copy.folder / "public.pem"))
    assert copy.doubts(day=FIRST) == set()
    signature = f"{copy.manifests(FIRST)[-1]}.sig"
    document = json.loads(copy.get(signature))
    key.public_key().verify(base64.b64decode(document["signature"]), document["statement"].encode())
    digest = hashlib.sha256(copy.get(copy.manifests(FIRST)[-1])).hexdigest()
    assert document["statement"].split("\n")[1:3] == [
        f"manifests/date={FIRST}/manifest-{digest_number(copy)}.json",
        digest,
    ]
    assert base64.b64encode(private) not in b"".join(copy.get(one) for one in copy.keys("manifests/"))


def digest_number(copy: Copy) -> int:
    return int(re.findall(r"\d+", copy.manifests(FIRST)[-1])[-1])


def test_forged_removed_and_foreign_signatures_are_named(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy.folder / "key.pem").write_bytes(pem(Ed25519PrivateKey.generate())[0])
    monkeypatch.setenv("ARCHIVE_SIGNING_KEY_FILE", str(copy.folder / "key.pem"))
    with DagsterInstance.ephemeral() as instance:
        assert sealed_again(instance, *DAYS)
    first, middle, last = (f"{copy.manifests(day)[-1]}.sig" for day in DAYS)
    copy.delete(first)
    document = json.loads(copy.get(middle))
    copy.put(middle, canonical_json(document | {"signature": base64.b64encode(b"0" * 64).decode()}))
    copy.put(last, copy.get(last).replace(b'"Ed25519"', b'"none"'))
    assert copy.doubts() == {
        (str(FIRST), "signature_missing", first),
        (str(MIDDLE), "signature_wrong", middle),
        (str(LAST), "signature_wrong", last),
    }
    (copy.folder / "key.pem").write_bytes(pem(Ed25519PrivateKey.generate())[0])
    copy.verify(first=LAST, last=LAST)
    assert "another key" in copy.sentences(last)


def test_a_key_that_cannot_be_used_fails_the_manifest_with_a_sentence_and_shows_nothing_of_it(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy.folder / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0c2VjcmV0\n-----END PRIVATE KEY-----\n")
    monkeypatch.setenv("ARCHIVE_SIGNING_KEY_FILE", str(copy.folder / "key.pem"))
    with DagsterInstance.ephemeral() as instance:
        assert not sealed_again(instance, FIRST)
        (sealing,) = instance.get_runs()
        events = str(instance.all_logs(sealing.run_id))
    assert "holds no Ed25519 private key" in events
    assert "c2VjcmV0" not in events
    assert run("verify", ["--from", str(FIRST), "--to", str(FIRST)]) == 2
    assert "c2VjcmV0" not in "".join(capsys.readouterr())


def test_signatures_by_kms_are_made_by_the_documented_calls_and_proved_without_kms(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.generate()
    with kms(key) as (endpoint, calls):
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", endpoint)
        monkeypatch.setenv("ARCHIVE_SIGNING_KMS_KEY", "alias/archive")
        with DagsterInstance.ephemeral() as instance:
            assert sealed_again(instance, FIRST)
        assert copy.doubts(day=FIRST) == set()
        signed = [one for name, one in calls if name == "Sign"]
        assert signed, "and the next date's too, where a call over midnight belongs to it"
        for one in signed:
            assert (one["KeyId"], one["MessageType"], one["SigningAlgorithm"]) == (
                "alias/archive",
                "RAW",
                "ED25519_SHA_512",
            )
        monkeypatch.setenv("ARCHIVE_SIGNING_KMS_KEY", "alias/unknown")
        with DagsterInstance.ephemeral() as instance:
            assert not sealed_again(instance, MIDDLE)
            (run,) = instance.get_runs()
            assert "KMS refused" in str(instance.all_logs(run.run_id))
    monkeypatch.delenv("ARCHIVE_SIGNING_KMS_KEY")
    (copy.folder / "public.pem").write_bytes(pem(key)[1])
    monkeypatch.setenv("ARCHIVE_VERIFY_KEY_FILE", str(copy.folder / "public.pem"))
    assert copy.doubts(day=FIRST) == set()


# --- the drill --------------------------------------------------------------------------------------------------------


def drilled(instance: DagsterInstance) -> tuple[dict[str, Any], str | None]:
    """The figures of one drill, and the sentence with which it fails if it does."""
    job = build_defs().resolve_job_def("restore_drill")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    if result.success:
        (event,) = [event for event in result.events_for_node("prove_sample") if event.is_successful_output]
        metadata, sentence = event.step_output_data.metadata, None
    else:
        (event,) = [event for event in result.events_for_node("prove_sample") if event.is_step_failure]
        failure = event.step_failure_data.user_failure_data
        assert failure is not None
        metadata, sentence = failure.metadata, failure.description
    return {name: value.value for name, value in metadata.items()}, sentence


def test_the_drill_reads_a_sample_keeps_its_result_and_passes(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVE_DRILL_RECORDINGS", "7")
    with DagsterInstance.ephemeral() as instance:
        metadata, failed = drilled(instance)
        assert failed is None
        # The night after the last date has recordings of calls over midnight, and was not run yet: one date more.
        assert metadata["recordings_read"] == 7
        (key,) = copy.keys("verifications/")
        kept = json.loads(copy.get(key))
        assert re.fullmatch(rf"{ARCHIVE_PREFIX}verifications/date={datetime.now(UTC).date()}/[0-9A-Z]{{26}}\.json", key)
        assert kept["sum"]["read"] == 7
        assert kept["read_data"]["seed"] == metadata["seed"]
        monkeypatch.setenv("ARCHIVE_DRILL_SHARE", "1")
        metadata, failed = drilled(instance)
        assert metadata["dates"] == 3
        assert metadata["recordings_read"] == sum(len(copy.held(day)) for day in DAYS)
        assert len(copy.keys("verifications/")) == 2


def test_the_drill_fails_with_a_sentence_and_leaves_out_dates_at_work(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIVE_DRILL_SHARE", "1")
    one = copy.held(MIDDLE)[0]
    copy.delete(one.key)
    with DagsterInstance.ephemeral() as instance:
        metadata, failed = drilled(instance)
        assert "1 discrepancy on 1 of 3 dates" in str(failed)
        assert metadata["doubts"] == 1
        (key,) = copy.keys("verifications/")
        assert [one["kind"] for one in json.loads(copy.get(key))["doubts"]] == ["object_missing"]
        job = build_defs().resolve_job_def("archive_day")
        instance.create_run_for_job(job, tags={"dagster/partition": str(MIDDLE)}, status=DagsterRunStatus.STARTED)
        metadata, failed = drilled(instance)
        assert failed is None
        assert metadata["dates"] == 2


def test_the_drill_succeeds_and_says_so_while_no_date_is_sealed(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVE_PREFIX", "new/")
    with DagsterInstance.ephemeral() as instance:
        metadata, failed = drilled(instance)
    assert failed is None
    assert metadata["dates"] == 0
    assert "no sealed date" in metadata["sentence"]
    (kept,) = (json.loads(copy.get(key)) for key in copy.everything_under("new/verifications/"))
    assert (kept["sealed_dates"], kept["good"]) == (0, True)


def test_many_parts_of_a_date_are_reduced_while_they_are_read(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    held = copy.held(MIDDLE)
    for _ in range(25):
        copy.ledger().append_states(held)
    most = 0
    whole = ledger_parts.current_lines

    def measured(parts: list[pa.Table]) -> pa.Table:
        nonlocal most
        most = max(most, sum(part.num_rows for part in parts))
        return whole(parts)

    monkeypatch.setattr(ledger_parts, "current_lines", measured)
    assert {kind for _, kind, _ in copy.doubts(day=MIDDLE)} == {"unwitnessed"}
    assert len(held) < most < 4 * len(held)


# --- servers ----------------------------------------------------------------------------------------------------------


class _Serving:
    def __init__(self, handler: type[BaseHTTPRequestHandler], extra: Any = None) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._extra = extra

    def __enter__(self) -> Any:
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return url if self._extra is None else (url, self._extra)

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def kms(key: Ed25519PrivateKey) -> _Serving:
    """What AWS KMS does with one key of the kind ECC_NIST_EDWARDS25519, by its documented JSON protocol."""
    calls: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

        def do_POST(self) -> None:
            name = self.headers["X-Amz-Target"].removeprefix("TrentService.")
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            calls.append((name, asked))
            status, answer = self._answer(name, asked)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _answer(self, name: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            if asked["KeyId"] != "alias/archive":
                return 400, {"__type": "NotFoundException", "message": "Alias is not found."}
            if name == "GetPublicKey":
                der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
                return 200, {"KeyId": "arn", "PublicKey": base64.b64encode(der).decode()}
            message = base64.b64decode(asked["Message"])
            if len(message) > 4096 or asked.get("MessageType") != "RAW":
                return 400, {"__type": "ValidationException", "message": "no"}
            return 200, {"KeyId": "arn", "Signature": base64.b64encode(key.sign(message)).decode()}

    return _Serving(Handler, calls)


# --- certificates -----------------------------------------------------------------------------------------------------

_AWS = """#!/bin/sh
[ "$1 $2" = "s3 cp" ] && exec cp "objects/${3#s3://}" "$4"
"""


def certified(copy: Copy, *dates: str) -> tuple[int, dict[str, Any], str]:
    """Return the exit code, the JSON and the page."""
    html, file = copy.folder / "certificate.html", copy.folder / "certificate.json"
    code = run("certificate", [*dates, "--html", str(html), "--json", str(file)], copy.client, clock=an_hour_later)
    return code, json.loads(file.read_text()), html.read_text()


def test_a_certificate_lists_what_is_sealed_and_its_commands_check_it_without_us(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.generate()
    private, public = pem(key)
    (copy.folder / "key.pem").write_bytes(private)
    (copy.folder / "public.pem").write_bytes(public)
    monkeypatch.setenv("ARCHIVE_SIGNING_KEY_FILE", str(copy.folder / "key.pem"))
    with DagsterInstance.ephemeral() as instance:
        assert sealed_again(instance, FIRST)
    _, document, html = certified(copy, "--date", str(FIRST))
    (of_date,) = document["dates"]
    latest = copy.manifests(FIRST)[-1]
    entries, root = (json.loads(copy.get(latest))[name] for name in ("entries", "merkle_root"))
    assert of_date["manifest"]["merkle_root"] == root
    assert root in html
    assert of_date["manifest"]["sha256"] == hashlib.sha256(copy.get(latest)).hexdigest()
    assert of_date["manifest"]["signature"] == {"key": f"{latest}.sig", "state": "valid"}
    assert [(one["recording_id"], one["state"]) for one in of_date["recordings"]] == [
        (one["recording_id"], one["status"]) for one in entries
    ]
    assert all(str(one[name]) in html for one in entries for name in ("recording_id", "sha256") if one[name])
    assert "<script" not in html
    assert "http" not in re.sub(r"http-equiv", "", html)
    tools = copy.folder / "tools"
    tools.mkdir()
    (tools / "aws").write_text(_AWS)
    (tools / "aws").chmod(0o755)
    for key in copy.keys(""):
        file = copy.folder / "objects" / copy.bucket / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(copy.get(key))
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    checked = subprocess.run(
        ["bash", "-e", "-c", "\n".join(of_date["commands"])],
        cwd=copy.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(": OK") == 2
    assert "Signature Verified Successfully" in checked.stdout


def test_the_verdict_of_a_certificate_is_that_of_verify_for_each_date_of_a_range(copy: Copy) -> None:
    copy.verify()
    code, document, html = certified(copy, "--from", str(FIRST), "--to", str(LAST))
    assert [one["verdict"] for one in document["dates"]] == [one["verdict"] for one in copy.result["dates"]]
    assert [one["sentence"] for one in document["dates"]] == [one["reason"] for one in copy.result["dates"]]
    assert document["verdict"] == copy.result["verdict"]
    assert code == EXIT_CODES[document["verdict"]]
    assert html.count("<section>") == len(DAYS)
    assert {one["manifest"]["signature"]["state"] for one in document["dates"]} == {"none"}


def test_a_certificate_names_objects_of_its_date_and_of_none_that_nobody_knows(copy: Copy) -> None:
    stray = f"{ARCHIVE_PREFIX}recordings/date={FIRST}/x.WAV"
    copy.put(stray, b"RIFF")
    copy.put(f"{ARCHIVE_PREFIX}backup.tar", b"x")
    code, document, html = certified(copy, "--date", str(FIRST))
    (of_date,) = document["dates"]
    assert (code, of_date["verdict"]) == (1, "gaps")
    assert [one["subject"] for one in of_date["discrepancies"]] == [stray]
    assert "backup.tar" in document["strays"][0]
    assert all(key in html for key in (stray, f"{ARCHIVE_PREFIX}backup.tar"))


def test_what_cannot_be_read_for_a_moment_is_said_and_ends_no_range(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = {day: copy.manifests(day)[-1] for day in DAYS}
    get = Bucket.get_bytes

    def fails(bucket: Bucket, key: str) -> bytes:
        if key in {f"{latest[FIRST]}.sig", latest[MIDDLE]}:
            raise StorageUnavailable("S3 does not answer just now")
        body = get(bucket, key)
        return body.replace(b'"run_id":"', b'"run_id":"x') if key == latest[LAST] else body

    monkeypatch.setattr(Bucket, "get_bytes", fails)
    code, document, _ = certified(copy, "--from", str(FIRST), "--to", str(LAST))
    assert code == 1
    first, middle, last = document["dates"]
    assert first["manifest"]["signature"]["state"] == "unreadable"
    assert len(first["recordings"]) > 0
    assert (middle["verdict"], middle["manifest"], middle["recordings"]) == ("gaps", None, [])
    assert "manifest_altered" in {one["kind"] for one in last["discrepancies"]}
    assert "S3 does not answer just now" in first["sentence"]
    assert "S3 does not answer just now" in middle["discrepancies"][0]["sentence"]
    assert "is not as it was sealed" in last["sentence"]


def test_a_date_without_a_manifest_or_with_a_damaged_one_is_certified_as_such(copy: Copy) -> None:
    for key in copy.manifests(FIRST):
        copy.delete(key)
    for key in copy.manifests(MIDDLE):
        copy.put(key, b"<script>alert(1)</script>")
    code, document, html = certified(copy, "--from", str(FIRST - timedelta(days=9)), "--to", str(MIDDLE))
    found = {one["date"]: one for one in document["dates"]}
    assert code == 1
    assert found[str(FIRST - timedelta(days=9))]["verdict"] == "unknown"
    for day in (FIRST, MIDDLE):
        assert (found[str(day)]["verdict"], found[str(day)]["manifest"]) == ("gaps", None)
        assert found[str(day)]["recordings"] == []
        assert found[str(day)]["discrepancies"]
    assert html.count("no recording can be certified") == len(found)


def test_what_a_forged_manifest_holds_is_shown_as_text_and_never_run(copy: Copy) -> None:
    key = copy.manifests(MIDDLE)[-1]
    forged = "<img src=x onerror=alert(1)>'; touch owned; '"

    def forge(document: Any) -> None:
        held = next(one for one in document["entries"] if one["status"] == "archived")
        held.update(key=forged, reason=forged)

    copy.put(key, edited(copy.get(key), forge, hashed=True))
    code, document, html = certified(copy, "--date", str(MIDDLE))
    assert (code, document["verdict"]) == (1, "gaps")
    assert "<img" not in html
    assert "&lt;img src=x" in html
    commands = document["dates"][0]["commands"]
    subprocess.run(["/bin/bash", "-c", "\n".join(commands)], cwd=copy.folder, env={"PATH": ""}, check=False)
    assert not (copy.folder / "owned").exists()

"""`ringcx-archive certificate`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dagster import DagsterInstance

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageUnavailable
from pipelines.steps.check.verdict import EXIT_CODES
from pipelines.wording import reason_in_words
from tests.commands import an_hour_later, run
from tests.pipeline.verify.conftest import ARCHIVE_PREFIX, DAYS, FIRST, LAST, MIDDLE, Copy, edited, pem, sealed_again

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
    assert [(recording["recording_id"], recording["state"]) for recording in of_date["recordings"]] == [
        (entry["recording_id"], entry["status"]) for entry in entries
    ]
    assert all(str(entry[name]) in html for entry in entries for name in ("recording_id", "sha256") if entry[name])
    assert "<script" not in html
    assert "http" not in re.sub(r"http-equiv", "", html)
    tools = copy.folder / "tools"
    tools.mkdir()
    (tools / "aws").write_text(_AWS)
    (tools / "aws").chmod(0o755)
    for name in copy.keys(""):
        file = copy.folder / "objects" / copy.bucket / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(copy.get(name))
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
    assert [day["verdict"] for day in document["dates"]] == [day["verdict"] for day in copy.result["dates"]]
    assert [day["sentence"] for day in document["dates"]] == [day["reason"] for day in copy.result["dates"]]
    assert document["verdict"] == copy.result["verdict"]
    assert code == EXIT_CODES[document["verdict"]]
    assert html.count("<section>") == len(DAYS)
    assert "`" not in html
    assert "&lt;code" not in html
    reasons = {
        recording["reason"] for each in document["dates"] for recording in each["recordings"] if recording["reason"]
    }
    assert reasons
    assert all(reason_in_words(reason) in unescape(html) for reason in reasons)
    assert {day["manifest"]["signature"]["state"] for day in document["dates"]} == {"none"}


def test_a_certificate_names_objects_of_its_date_and_of_none_that_nobody_knows(copy: Copy) -> None:
    stray = f"{ARCHIVE_PREFIX}recordings/date={FIRST}/x.WAV"
    copy.put(stray, b"RIFF")
    copy.put(f"{ARCHIVE_PREFIX}backup.tar", b"x")
    code, document, html = certified(copy, "--date", str(FIRST))
    (of_date,) = document["dates"]
    assert (code, of_date["verdict"]) == (1, "gaps")
    assert [discrepancy["subject"] for discrepancy in of_date["discrepancies"]] == [stray]
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
    assert "could not be verified completely" in middle["sentence"]
    assert "as it was sealed" not in middle["sentence"], "nobody has seen that"
    assert "manifest_altered" in {discrepancy["kind"] for discrepancy in last["discrepancies"]}
    assert "S3 does not answer just now" in first["sentence"]
    assert "S3 does not answer just now" in middle["discrepancies"][0]["sentence"]
    assert "is not as it was sealed" in last["sentence"]


def test_a_date_without_a_manifest_or_with_a_damaged_one_is_certified_as_such(copy: Copy) -> None:
    for key in copy.manifests(FIRST):
        copy.delete(key)
    for key in copy.manifests(MIDDLE):
        copy.put(key, b"<script>alert(1)</script>")
    code, document, html = certified(copy, "--from", str(FIRST - timedelta(days=9)), "--to", str(MIDDLE))
    found = {of_date["date"]: of_date for of_date in document["dates"]}
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
        held = next(entry for entry in document["entries"] if entry["status"] == "archived")
        held.update(key=forged, reason=forged)

    copy.put(key, edited(copy.get(key), forge, hashed=True))
    code, document, html = certified(copy, "--date", str(MIDDLE))
    assert (code, document["verdict"]) == (1, "gaps")
    assert "<img" not in html
    assert "&lt;img src=x" in html
    commands = document["dates"][0]["commands"]
    subprocess.run(["/bin/bash", "-c", "\n".join(commands)], cwd=copy.folder, env={"PATH": ""}, check=False)
    assert not (copy.folder / "owned").exists()

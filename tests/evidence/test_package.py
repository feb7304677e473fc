"""What is in a package, and that it is proved by itself."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipelines.archive.errors import StorageUnavailable
from pipelines.archive.keys import manifest_key, signature_key
from pipelines.archive.proof.attestation import MANIFESTS, ObservedObject, write_attestation
from pipelines.archive.proof.manifest import canonical_json, read_manifest
from pipelines.archive.proof.signature import FIRST_FORMAT, signed_statement
from pipelines.evidence.verify import verify
from tests.browser.site import DAY, NOW, Site, break_at, tone
from tests.evidence.conftest import Exported, exported, packaged


def verified_alone(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the package's own verify.py in its folder, with a Python that sees no other package."""
    command = [sys.executable, "-I", "-S", "verify.py", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env={})
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_package_holds_what_was_asked_for_and_says_what_it_lacks(package: Exported, full: Site) -> None:
    held, lost = full.rows[:2], full.rows[2]
    files, listing = package.files, package.listing
    assert next(iter(files)) == "verify.py"
    assert list(files)[-1] == "package.json"
    assert {file["name"]: file["sha256"] for file in listing["files"]} == {
        name: hashlib.sha256(body).hexdigest() for name, body in files.items() if name != "package.json"
    }
    for row, recording in zip(held, listing["recordings"], strict=True):
        assert files[recording["file"]] == full.bucket.get_bytes(row["key"])
        assert recording["recording_id"] == row["recording_id"]
    assert [recording["file"][:27] for recording in listing["recordings"]] == [
        "recordings/00001_2026-11-22",
        "recordings/00002_2026-11-22",
    ]
    (without,) = listing["not_included"]
    assert (without["recording_id"], without["state"], without["reason"]) == (
        lost["recording_id"],
        "missing",
        "not_found",
    )
    assert (listing["exported_by"], listing["why"], listing["exported_at"]) == (
        "r.adams",
        "Case 4711",
        "2026-11-30T09:05:00+00:00",
    )
    lines = list(csv.DictReader(io.StringIO(files["calls.csv"].decode())))
    assert [line["file"] for line in lines] == [*(state["file"] for state in listing["recordings"]), ""]
    assert lines[0]["notes"] == "'=cmd()"
    assert lines[0]["ani"] == "'+1 (602) 555-0142"


def test_a_package_is_the_same_whenever_the_same_is_exported(package: Exported, full: Site) -> None:
    full.rows.reverse()
    assert exported(full).body == package.body


def test_a_proof_discloses_no_other_call_and_no_name_or_number(package: Exported) -> None:
    for name, body in package.files.items():
        if name.startswith(("proofs/", "recordings/")):
            assert b"other" not in body + name.encode()
            assert b"Nobody" not in body
            assert not any(number in body for number in (b"555-0142", b"6025550142"))
    proof = package.proof()
    assert proof["tree_size"] == 12
    assert len(proof["path"]) == 3


@pytest.mark.parametrize("packed", [True, False])
def test_a_package_is_proved_by_its_own_verify_py_alone(package: Exported, tmp_path: Path, packed: bool) -> None:
    folder = package.unpack(tmp_path / "package")
    code, output = verified_alone(folder, *([str(package.save(tmp_path / "package.zip"))] if packed else []))
    assert code == 0, output
    (key,) = (file["name"] for file in package.listing["files"] if file["name"].startswith("keys/"))
    assert f"fingerprint (SHA-256) is {key[5:-4]}." in output
    assert "Proved: 2 of 2 recordings" in output
    assert "(missing: not_found)" in output
    code, output = verified_alone(folder, "--key", key)
    assert (code, "Compare the fingerprint" in output) == (0, False)


def test_the_commands_of_how_to_verify_work_with_openssl_and_sha256sum(package: Exported, tmp_path: Path) -> None:
    folder = package.unpack(tmp_path / "package")
    text = (folder / "HOW-TO-VERIFY.txt").read_text()
    commands = re.findall(r"^    ((?:sha256sum|printf|echo|openssl) .*)$", text, re.MULTILINE)
    assert len(commands) == 5
    done = subprocess.run(
        ["bash", "-ec", "\n".join(commands).replace("/tmp/", f"{tmp_path}/")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == 2
    assert "Signature Verified Successfully" in done.stdout
    proof = package.proof()
    assert (tmp_path / "statement").read_text().splitlines()[-1] == proof["merkle_root"]
    assert proof["signature"]["key_id"] in done.stdout
    assert "Requested, but not in this package: 1 recording or call." in text
    assert "$" not in text


def test_altered_lost_and_unproved_recordings_are_listed_and_never_included(full: Site) -> None:
    altered, gone = full.rows[0], full.rows[1]
    body = full.bucket.get_bytes(altered["key"])
    full.overwrite(altered["key"], body[:-1] + b"\x01")
    full.remove(gone["key"])
    package = exported(full)
    assert package.listing["recordings"] == []
    assert [(recording["recording_id"], recording["state"]) for recording in package.listing["not_included"]] == [
        (altered["recording_id"], "altered"),
        (gone["recording_id"], "not proved"),
        (full.rows[2]["recording_id"], "missing"),
    ]
    assert "nothing is stored under its key now" in package.listing["not_included"][1]["reason"]
    assert not [name for name in package.files if name.startswith(("recordings/", "proofs/"))]


def test_a_package_with_an_altered_recording_is_never_whole(full: Site, tmp_path: Path) -> None:
    full.overwrite(full.rows[0]["key"], tone(0.5, 300, 501))
    report = verify(exported(full).save(tmp_path / "package.zip"))
    assert (report.exit_code, report.problems, report.proved) == (1, [], 1)
    assert any("altered: The bytes are not those sealed in manifest 1" in line for line in report.lines())
    assert "INCOMPLETE" in report.lines()[-1]


def test_a_recording_of_a_manifest_without_a_root_is_not_included(full: Site) -> None:
    key = manifest_key(full.bucket.prefix, DAY, 1)
    document = json.loads(full.bucket.get_bytes(key))
    del document["merkle_root"]
    full.bucket.put(key, canonical_json(document), content_type="application/json")
    full.key = None
    digest = hashlib.sha256(canonical_json(document)).hexdigest()
    for row in full.rows:
        row["manifest_sha256"] = digest
    for attested in [key for key, _ in full.bucket.list_keys(f"{full.bucket.prefix}witnesses/")]:
        full.remove(attested)
    seen = ObservedObject(key.removeprefix(full.bucket.prefix), 1, digest)
    write_attestation(full.bucket, MANIFESTS, DAY, [seen], now=NOW)
    reasons = [recording["reason"] for recording in exported(full).listing["not_included"]]
    assert reasons[:2] == ["Manifest 1 of 2026-11-22 has no Merkle root: run that date again."] * 2


def test_what_is_not_signed_is_said_and_never_called_proved(site: Site, tmp_path: Path) -> None:
    site.add(tone(0.1, 300))
    site.seal()
    package = exported(site)
    report = verify(package.save(tmp_path / "package.zip"))
    assert (report.exit_code, report.proved, report.unsigned) == (3, 0, 1)
    assert not [line for line in report.lines() if line.startswith("Proved")]
    assert "NOT proved: 1 of 1 recordings" in report.lines()[-1]
    assert "compare each Merkle root above" in report.lines()[-1]
    head = read_manifest(site.bucket, DAY, 1)
    assert f"Merkle root of {manifest_key('', DAY, 1)}: {head.document['merkle_root']}." in report.lines()[1]
    text = package.files["HOW-TO-VERIFY.txt"].decode()
    assert "NO SIGNATURE IN THIS PACKAGE VOUCHES FOR ITS RECORDINGS." in text
    assert "openssl" not in text


def test_a_signature_of_an_earlier_version_is_said_not_to_cover_the_root(full: Site, tmp_path: Path) -> None:
    assert full.key is not None
    head = read_manifest(full.bucket, DAY, 1)
    text = signed_statement(full.bucket.prefix, head, {"format": FIRST_FORMAT})
    key = signature_key(head.key)
    document = json.loads(full.bucket.get_bytes(key)) | {"format": FIRST_FORMAT, "statement": text.decode()}
    document["signature"] = base64.b64encode(full.key.sign(text)).decode()
    full.bucket.put(key, canonical_json(document), content_type="application/json")
    package = exported(full)
    report = verify(package.save(tmp_path / "package.zip"))
    assert (report.exit_code, report.proved, report.unsigned) == (3, 0, 2)
    assert "names no Merkle root, so it does not vouch for a recording" in " ".join(report.notes)
    assert "NO SIGNATURE IN THIS PACKAGE VOUCHES" in package.files["HOW-TO-VERIFY.txt"].decode()


def test_a_package_without_the_public_key_says_how_to_get_it(full: Site, tmp_path: Path) -> None:
    key, full.key = full.key, None
    assert key is not None
    folder = exported(full).unpack(tmp_path / "package")
    text = (folder / "HOW-TO-VERIFY.txt").read_text()
    assert "keys/" not in text
    assert "ask the archive's owner for it, and save it next to this\nfolder, not in it, as archive.pem" in text
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "archive.pem").write_bytes(pem)
    assert verified_alone(folder, "--key", "../archive.pem")[0] == 0
    commands = re.findall(r"^    ((?:printf|echo|openssl) .*)$", text, re.MULTILINE)
    script = "\n".join(commands).replace("/tmp/", f"{tmp_path}/")
    done = subprocess.run(["bash", "-ec", script], cwd=folder, capture_output=True, text=True, check=False)
    assert "Signature Verified Successfully" in done.stdout


def test_with_a_key_a_manifest_that_is_unsigned_or_signed_by_another_proves_nothing(full: Site) -> None:
    full.key = Ed25519PrivateKey.generate()
    (first, *_) = exported(full).listing["not_included"]
    assert "made with a different key" in first["reason"]
    full.remove(signature_key(manifest_key(full.bucket.prefix, DAY, 1)))
    (first, *_) = exported(full).listing["not_included"]
    assert "is not signed" in first["reason"]


def test_withheld_recordings_are_listed_and_rows_are_shown_as_they_may_be(full: Site) -> None:
    package = exported(
        full, may_include=lambda row: row["layout"] == "mono", shown=lambda row: {**row, "ani": "••", "notes": ""}
    )
    assert [recording["state"] for recording in package.listing["not_included"]] == ["withheld", "missing"]
    assert len(package.listing["recordings"]) == 1
    assert b"555-0142" not in package.files["calls.csv"]


def test_a_name_of_a_package_is_harmless_whatever_the_table_says(full: Site) -> None:
    full.rows[0] |= {"recording_id": "../../etc/passwd", "key": "recordings/date=x/..\\..\\a b;c"}
    package = exported(full)
    assert package.listing["not_included"][0]["state"] == "not proved"
    assert all(re.fullmatch(r"[A-Za-z0-9./_-]+", name) and ".." not in name for name in package.files)


def test_a_package_that_breaks_off_is_no_zip(full: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    break_at(full.rows[1], monkeypatch)
    sent = bytearray()

    def send() -> None:
        for block in packaged(full).blocks():
            sent.extend(block)

    with pytest.raises(StorageUnavailable):
        send()
    assert len(sent) > 10_000
    path = tmp_path / "cut.zip"
    path.write_bytes(sent)
    report = verify(path)
    assert report.exit_code == 1
    assert "damaged, cut off or not a package" in report.problems[0]


def test_a_long_recording_is_streamed_in_little_memory_and_in_zip64(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1 << 20)
    site.add(bytes(48 << 20))
    site.seal()
    package = packaged(site)
    path = tmp_path / "long.zip"
    tracemalloc.start()
    with path.open("wb") as into:
        for block in package.blocks():
            into.write(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20
    assert verify(path).problems == []
    assert subprocess.run(["unzip", "-tq", path], check=False, capture_output=True).returncode == 0

"""`ringcx-archive export` and `verify-package`."""

from __future__ import annotations

import getpass
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageUnavailable
from pipelines.calendar import utc_now
from pipelines.compliance.access_log import Access, AccessLog
from tests.browser.site import DAY, Site, tone
from tests.commands import run

AROUND = ["--from", str(DAY), "--to", str(DAY)]


def pem_of(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def archive(full: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """The site as the settings name it."""
    assert full.key is not None
    (tmp_path / "public.pem").write_bytes(pem_of(full.key))
    for name, value in {
        "ARCHIVE_BUCKET": full.bucket.name,
        "ARCHIVE_PREFIX": full.bucket.prefix,
        "ARCHIVE_VERIFY_KEY_FILE": str(tmp_path / "public.pem"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return full


def export(site: Site, *arguments: str) -> int:
    return run("export", [*arguments, "--by", "r.adams"], site.bucket._client)


def logged(site: Site) -> list[Access]:
    today = utc_now().date()
    found = [entry for entry in AccessLog(site.bucket).read(today, today) if isinstance(entry, Access)]
    return sorted(found, key=lambda entry: entry.recording_id)


def test_what_is_exported_is_logged_written_whole_and_proved(
    archive: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uii = archive.rows[0]["uii"]
    arguments = [*AROUND, "--uii", uii, "--why", "case  4711", "--output", "case.zip", "--json", "said.json"]
    assert export(archive, *arguments) == 0
    output = capsys.readouterr()
    assert "Exported 2 recordings (" in output.out
    assert output.err.startswith("case.zip was written.\n")
    printed = json.loads(Path("said.json").read_text())
    assert [recording["recording_id"] for recording in printed["recordings"]] == [
        row["recording_id"] for row in archive.rows[:2]
    ]
    assert printed["asked_for"] == {"first": str(DAY), "last": str(DAY), "uii": uii}
    search, *entries = logged(archive)
    assert (search.action, search.details["uii"], search.why) == ("search", uii, "case 4711")
    said_of_each = {(entry.action, entry.user, entry.details["by"], entry.uii, entry.why) for entry in entries}
    assert said_of_each == {("export", getpass.getuser(), "r.adams", uii, "case 4711")}
    assert {entry.recording_id for entry in entries} == {row["recording_id"] for row in archive.rows[:2]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case.zip", "public.pem", "said.json"]
    assert run("verify-package", ["case.zip", "--json", "verified.json"]) == 0
    assert "Proved: 2 of 2 recordings" in capsys.readouterr().out
    assert json.loads(Path("verified.json").read_text())["proved"] == 2


def test_recordings_are_exported_by_their_ids_and_an_unknown_one_is_named(
    archive: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    known, lost = archive.rows[1]["recording_id"], archive.rows[2]["recording_id"]
    ids = [part for recording_id in (known, lost, "1/no-such") for part in ("--recording", recording_id)]
    assert export(archive, *AROUND, *ids, "--why", "case 4711", "--output", "case.zip") == 1
    output = capsys.readouterr().out
    assert "Not included: 1/no-such (unknown: No call has this recording.)" in output
    assert f"Not included: {lost} (missing: the source does not have it)" in output
    assert re.search(r"Exported 1 recording \(.*\); 2 recordings were requested but left out\.\n", output)
    assert run("verify-package", ["case.zip"]) == 0
    assert "Not in this package: 1/no-such (unknown" in capsys.readouterr().out


def test_an_altered_recording_is_left_out_said_and_ends_with_1(
    archive: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.overwrite(archive.rows[0]["key"], tone(0.5, 300, 501))
    assert export(archive, *AROUND, "--uii", archive.rows[0]["uii"], "--why", "case", "--output", "case.zip") == 1
    assert (
        "(altered: The bytes are not those sealed in manifest 1 of 2026-11-22: verify this date.)"
        in capsys.readouterr().out
    )
    assert run("verify-package", ["case.zip"]) == 1
    assert "INCOMPLETE" in capsys.readouterr().out


def test_nothing_is_exported_without_the_access_log(
    archive: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> str:
        raise StorageUnavailable("The log cannot be written")

    monkeypatch.setattr(AccessLog, "record", refuse)
    monkeypatch.setattr(Bucket, "hash_object", lambda *_: pytest.fail("a recording was read"))
    assert export(archive, *AROUND, "--why", "case", "--output", "case.zip") == 2
    assert "The log cannot be written" in capsys.readouterr().err
    assert not Path("case.zip").exists()


@pytest.mark.parametrize(("error", "code"), [(StorageUnavailable("S3 does not answer"), 2), (KeyboardInterrupt(), 130)])
def test_an_export_that_breaks_off_leaves_no_file(
    archive: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, code: int
) -> None:
    def fail(*_: Any) -> str:
        assert list(tmp_path.glob("case.zip*")) == [tmp_path / "case.zip.partial"]
        raise error

    monkeypatch.setattr(Bucket, "hash_object", fail)
    assert export(archive, *AROUND, "--why", "case", "--output", "case.zip") == code
    assert [path.name for path in tmp_path.iterdir()] == ["public.pem"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--why", "case", "--output", "case.zip"], "Say what to export"),
        ([*AROUND, "--output", "case.zip"], "'--why'"),
        ([*AROUND, "--why", " ", "--output", "case.zip"], "neither may be empty"),
        ([*AROUND, "--why", "case"], "--output FILE.zip"),
        ([*AROUND, "--why", "case", "--output", "public.pem"], "public.pem exists"),
        ([*AROUND, "--why", "case", "--output", "none/case.zip"], "there is no folder none"),
        (["--from", "2026-11-22", "--to", "2026-11-21", "--why", "case", "--output", "case.zip"], "is after"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_logged(
    archive: Site, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(archive, *arguments) == 2
    assert sentence in capsys.readouterr().err
    assert logged(archive) == []


def test_dates_without_a_table_are_named_and_end_with_3(archive: Site, capsys: pytest.CaptureFixture[str]) -> None:
    around = ["--from", "2026-11-21", "--to", str(DAY)]
    assert export(archive, *around, "--uii", "none", "--why", "case", "--output", "case.zip") == 3
    assert "Not searched, or only in part: 2026-11-21 (1 date)" in capsys.readouterr().out
    assert not Path("case.zip").exists()
    assert [entry.action for entry in logged(archive)] == ["search"]
    uii = archive.rows[0]["uii"]
    assert export(archive, *around, "--uii", uii, "--why", "case", "--output", "case.zip") == 3
    assert run("verify-package", ["case.zip"]) == 0
    assert "Dates not searched, or only in part: 1, from 2026-11-21" in capsys.readouterr().out


def test_a_package_of_a_foreign_key_is_refused_by_who_has_the_archives(
    archive: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export(archive, *AROUND, "--uii", archive.rows[0]["uii"], "--why", "case", "--output", "case.zip")
    Path("other.pem").write_bytes(pem_of(Ed25519PrivateKey.generate()))
    assert run("verify-package", ["case.zip", "--key", "other.pem"]) == 1
    assert "signed with a different key" in capsys.readouterr().out
    monkeypatch.delenv("ARCHIVE_VERIFY_KEY_FILE")
    assert run("verify-package", ["case.zip"]) == 0
    assert "Compare the fingerprint" in capsys.readouterr().out
    Path("other.pem").write_text("no key")
    assert run("verify-package", ["case.zip", "--key", "other.pem"]) == 2
    assert run("verify-package", ["none.zip"]) == 2
    assert run("verify-package", ["other.pem"]) == 1
    assert "damaged, cut off or not a package" in capsys.readouterr().out

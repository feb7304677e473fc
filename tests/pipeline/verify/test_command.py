"""The command line of `ringcx-archive verify`: usage, settings, progress."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest

from pipelines.cli.verify import Screen
from tests.commands import run
from tests.pipeline.conftest import Store
from tests.pipeline.verify.conftest import FIRST, LAST, Copy


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
    output = capsys.readouterr()
    assert output.out == ""
    assert sentence in output.err
    assert output.err.count("\n") == 1


def test_settings_that_are_wrong_are_one_sentence_and_code_2(
    rclone: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
        output = capsys.readouterr().err
        assert output.count("\n") == 1
        assert "wrong-secret" not in output


def test_dates_before_the_first_date_are_never_sealed_and_not_as_sealed(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIVE_START_DATE", str(FIRST))
    before = FIRST - timedelta(days=30)
    assert copy.verify(first=before, last=before) == 0
    line = next(line for line in copy.out.splitlines() if line.startswith(str(before)))
    assert line.endswith("never sealed")
    assert "the archive of 0 dates is as it was sealed. 1 date was never sealed." in copy.out


def test_no_log_in_to_the_source_is_needed(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RINGCX_ACCOUNT_IDS", "RINGCENTRAL_JWT", "RINGCENTRAL_CLIENT_ID", "RINGCENTRAL_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    assert copy.doubts() == set()


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

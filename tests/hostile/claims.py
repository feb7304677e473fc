"""What must hold for any bytes at all. Each claim takes bytes, so that hypothesis and atheris drive the same ones.

A claim returns when it holds, and raises whatever the code raised that it should not have. Run as a script, it fuzzes
one claim with atheris for as long as asked: `python tests/hostile/claims.py wav -max_total_time=60`.
"""
# ruff: noqa: PT017 - a refusal is one of two good ends here, not what is expected

from __future__ import annotations

import inspect
import io
import json
import math
import re
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import httpx
import pyarrow as pa

from pipelines.archive.keys import (
    apart_key,
    copy_key,
    manifest_number,
    metadata_text,
    recording_key,
)
from pipelines.archive.wav import NotARecording, WavInfo, inspect_wav
from pipelines.ledger.files import LocalFiles
from pipelines.ledger.store import Ledger
from pipelines.ringcx.auth import is_secure
from pipelines.ringcx.errors import LinkRefused, ReportInvalid, shown_url
from pipelines.ringcx.http.client import retry_after
from pipelines.ringcx.links import HostList, parse_link
from pipelines.ringcx.reports.columns import COLUMNS, LEDGER_COLUMNS, LINK_COLUMN, ReportName
from pipelines.ringcx.reports.identity import with_row_identity
from pipelines.ringcx.reports.tables import parse_report
from pipelines.ringcx.reports.times import parse_hms, parse_report_time, uii_time

REPORTS: tuple[ReportName, ReportName] = ("agent_segment_metadata", "global_call_type_detail")
DAY = date(2026, 11, 20)
NOW = datetime(2026, 11, 21, tzinfo=UTC)
HOSTS = HostList(["*.virtualacd.biz", "*.vacd.biz", "127.0.0.1", "localhost", "files.example.org:8443"])
WAV_REASONS = {
    *(
        "empty_body",
        "html_body",
        "json_body",
        "text_body",
        "mp3_body",
        "not_riff",
        "not_wave",
        "no_fmt",
        "bad_fmt",
        "no_data",
    ),
    *("header_only", "cut_off"),
}
LINK_REASONS = {
    *("too_long", "malformed", "not_https", "no_file", "several_files", "credentials_in_url", "host_not_allowed"),
}
KEY = re.compile(
    r"recordings/date=2026-11-20/account_id=[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}/layout=(mono|stereo)"
    r"/[A-Za-z0-9_-][A-Za-z0-9._-]{0,140}",
    re.ASCII,
)
_QUOTABLE = re.compile(r"[^\W_]{9,}")


def report_is_a_table_or_refused(body: bytes) -> None:
    """Any body becomes a table that the ledger takes and gives back, or a refusal that quotes nothing of it."""
    report = REPORTS[len(body) % 2]
    framed = bool(len(body) & 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "body")
        path.write_bytes(body)
        try:
            with path.open("rb") as file:
                table = parse_report(report, file, framed=framed)
        except ReportInvalid as refusal:
            _quotes_nothing(str(refusal), body)
            assert refusal.__cause__ is None
            return
        assert table.column_names[: len(COLUMNS[report])] == list(COLUMNS[report])
        assert len(set(table.column_names)) == table.num_columns
        assert not set(table.column_names) & set(LEDGER_COLUMNS)
        assert set(table.schema.types) == {pa.string()}
        rows = with_row_identity(report, table, "15300002")
        assert rows["row_key"].null_count == 0
        assert len(set(rows["row_key"].to_pylist())) == rows.num_rows <= table.num_rows
        ledger = Ledger(LocalFiles(Path(folder, "ledger")), clock=lambda: NOW)
        ledger.append_rows(report, DAY, rows, account_id="15300002", pulled_at=NOW, run_id="fuzz")
        back = ledger.all_rows(report, DAY, columns=["row_hash", LINK_COLUMN[report]])
        assert sorted(back["row_hash"].to_pylist()) == sorted(rows["row_hash"].to_pylist())
        for column in ("uii", LINK_COLUMN[report]):
            for text in rows[column].to_pylist():
                uii_time(text)
                parse_report_time(text)
                seconds = parse_hms(text)
                assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


def _quotes_nothing(sentence: str, body: bytes) -> None:
    own_words = " ".join((*REPORTS, *COLUMNS[REPORTS[0]], *COLUMNS[REPORTS[1]], "administration"))
    for word in _QUOTABLE.findall(body.decode("latin-1")):
        assert word in own_words or word not in sentence, "the sentence quotes the body"


def link_leads_only_where_allowed(raw: bytes) -> None:
    """Any text is a link or refused by a known name; one that may be requested leads to a listed host by httpx too."""
    text = raw.decode("utf-8", "surrogateescape")
    shown = shown_url(text)
    assert "?" not in shown
    try:
        link = parse_link(text, "15300002")
    except LinkRefused as refusal:
        assert refusal.reason in LINK_REASONS
        return
    assert parse_link(link.url, "15300002") == link
    account, _, file_path = link.recording_id.partition("/")
    assert account == "15300002"
    assert file_path.strip("/")
    _key_is_harmless("15300002", "mono", file_path, link.recording_id)
    _requests_a_listed_host(link.url)


def _requests_a_listed_host(url: str) -> None:
    try:
        HOSTS.require(url)
    except LinkRefused as refusal:
        assert refusal.reason in LINK_REASONS
        assert "?" not in str(refusal).replace("?host", "")
        return
    request = httpx.Request("GET", url)  # what would go out
    host = request.url.raw_host.decode().removesuffix(".")
    names = [request.headers["Host"].rpartition(":")[0] or request.headers["Host"], host]
    for name in names:
        known = name.removesuffix(".")
        inside = known.endswith((".virtualacd.biz", ".vacd.biz"))
        assert inside or known in {"127.0.0.1", "localhost", "files.example.org"}
        assert re.fullmatch(r"[a-z0-9._-]+", known)
    assert request.url.scheme == "https" or host in {"127.0.0.1", "localhost"}
    assert not request.url.userinfo
    assert "authorization" not in request.headers
    assert b"\r" not in request.url.raw_path
    assert b"\n" not in request.url.raw_path


def wav_is_described_or_refused(body: bytes) -> None:
    """Any bytes are a whole recording or none for a known reason; the standard library's reader agrees on the good."""
    watched = _Watched(body)
    try:
        info: WavInfo | None = inspect_wav(watched, len(body))
    except NotARecording as refusal:
        assert refusal.reason in WAV_REASONS
        info = None
    assert watched.taken <= 1 << 16
    if info is not None:
        assert info.data_bytes > 0
        assert info.header_bytes + info.data_bytes <= len(body)
        assert info.duration_s is None or (math.isfinite(info.duration_s) and info.duration_s >= 0)
    if _is_whole_pcm(body):
        assert info is not None, "a whole PCM file was refused"
        assert (info.proof, info.disagrees) == ("whole", False)


class _Watched(io.BytesIO):
    """Counts what is read."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(size)
        self.taken += len(block)
        return block


def _is_whole_pcm(body: bytes) -> bool:
    """Whether it is a plain header, true in each of its sizes, around audio that the standard library reads whole."""
    riff, form, align, data = (
        int.from_bytes(body[at : at + n], "little") for at, n in ((4, 4), (16, 4), (32, 2), (40, 4))
    )
    if (riff, form, data) != (len(body) - 8, 16, len(body) - 44) or body[36:40] != b"data":
        return False
    try:
        with wave.open(io.BytesIO(body)) as sound:
            frame = sound.getsampwidth() * sound.getnchannels()
            whole = sound.getnframes() > 0 and len(sound.readframes(sound.getnframes())) == data
            # wave does not look at the frame's size and the rate; a header at odds with itself is not a good one
            return whole and align == frame and sound.getframerate() > 0
    except (wave.Error, EOFError):
        return False


def key_is_harmless(text: bytes) -> None:
    """Any account and path give keys of harmless segments, bounded, the same again."""
    account, _, path = text.decode("utf-8", "surrogateescape").partition("|")
    for layout in ("mono", "stereo"):
        _key_is_harmless(account, layout, path, f"{account}/{path}")


def _key_is_harmless(account: str, layout: str, path: str, recording_id: str) -> None:
    key = recording_key("", DAY, account, layout, path)
    apart = apart_key(key, recording_id)
    assert key == recording_key("", DAY, account, layout, path)
    for name in (key, apart):
        assert KEY.fullmatch(name), "a key of another shape"
        assert not {".", "..", ""} & set(name.split("/"))
        assert len(name.encode()) <= 1024
        assert manifest_number(name) is None or re.fullmatch(r".*/manifest-\d+\.json", name)
    assert apart != key
    conflict = copy_key("conflicts", "", key, "ab" * 32)
    assert conflict.startswith("conflicts/date=2026-11-20/account_id=")
    for value in (account, path, recording_id):
        shown = metadata_text(value)
        assert shown.isascii()
        assert len(shown) <= 512
        assert shown.isprintable()


def header_is_read_or_ignored(raw: bytes) -> None:
    """A `Retry-After`, a base address and a time of any shape are read, refused or ignored."""
    text = raw.decode("utf-8", "replace")
    asked = retry_after(text)
    assert asked is None or asked >= 0
    for read in (uii_time, parse_report_time):
        moment = read(text)
        assert moment is None or moment.tzinfo is UTC
    assert not is_secure(text) or re.match(r"https?://@?[^/?#@]+(?![^/?#])", text, re.IGNORECASE)


CLAIMS: dict[str, Callable[[bytes], None]] = {
    "report": report_is_a_table_or_refused,
    "link": link_leads_only_where_allowed,
    "wav": wav_is_described_or_refused,
    "key": key_is_harmless,
    "header": header_is_read_or_ignored,
}

SEEDS: dict[str, Sequence[bytes]] = {
    "report": [
        b'UII,Session ID,Agent Disposition,Segment Recording URL\r\n\'2026112013,2,"a ""b"", c\nd",https://h/?file=a\r\n',
        b"uii,recording_url\n1,https://x.vacd.biz/?file=a.WAV\n",
        json.dumps([{"uii": "1", "recordingUrl": "https://h/?file=a", "jsonResult": {"a": [1.0, None]}}]).encode(),
        b'[{"uii":"1","recording_url":null,"x":[[[["deep"]]]]},{"uii":"\\ud800","recordingUrl":""}]',
    ],
    "link": [
        b"https://c02-recordings.virtualacd.biz/api/v1/calls/recordings/?v=1&accountId=1&file=1/202007/30/a-1.WAV",
        b"http://127.0.0.1:8080/?file=../../etc/passwd%00",
        b"https://xn--.vacd.biz/?file=a",
        b"https://user:pass@aws46-recordings.vacd.biz./?fi%6Ce=a&file=b",
    ],
    "wav": [
        b"RIFF\x2c\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\x08\0\0\0abcdefgh",
        b"RF64\xff\xff\xff\xffWAVEds64\x1c\0\0\0"
        + bytes(28)
        + b"fmt \x10\0\0\0\1\0\2\0\x40\x1f\0\0\0\x7d\0\0\4\0\x10\0"
        b"data\xff\xff\xff\xff12345678",
    ],
    "key": [b"15300002|15300002/202007/30/a-1.WAV", b"..|../../x\0y", b"|sha256-0123"],
    "header": [b"120", b"Fri, 20 Nov 2026 10:00:00 GMT", b"20200730213636", b"https://ringcx.ringcentral.com"],
}


def _our_functions() -> Iterator[Callable[..., object]]:
    """What coverage is counted of: our own code; all that is imported would take a minute to prepare."""
    modules = [module for name, module in sys.modules.items() if name.startswith("pipelines.")]
    for module in modules:
        holders = [module, *(member for member in vars(module).values() if isinstance(member, type))]
        for holder in holders:
            if getattr(holder, "__module__", module.__name__) == module.__name__:
                yield from (
                    f for f in vars(holder).values() if inspect.isfunction(f) and f.__module__ == module.__name__
                )


def main(arguments: list[str]) -> None:
    """Fuzz one claim with atheris; the rest of the arguments are libFuzzer's."""
    import atheris

    name, *rest = arguments
    with tempfile.TemporaryDirectory() as corpus:
        for n, seed in enumerate(SEEDS[name]):
            Path(corpus, f"seed-{n}").write_bytes(seed)
        for function in _our_functions():
            atheris.instrument_func(function)
        atheris.Setup([sys.argv[0], corpus, *rest], CLAIMS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])

"""Whatever the source sends to the parsers ends as a value or as a refusal with a name: the claims of `claims.py`.

A few hundred examples a claim here; the profile `HOSTILE_EXAMPLES=200000` of the environment runs them for minutes.
"""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCRIPT = Path(__file__).with_name("claims.py")
EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "300"))
often = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
rarely = settings(often, max_examples=max(50, EXAMPLES // 3))


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hostile_claims", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


claims = _loaded()

NASTY = st.sampled_from(
    [
        "\0", "\u202e", "\u200f", "\ufeff", "\u2028", "\x85", "..", "../..", "%2e%2e%2f", "%00", "%0d%0a", "\r\n",
        "'", '"',
        "\\", "ß", "İ", "ſ", "K", "。", "．", "@", ":", "::1", "%", "%%", "#", "?", ";", "|", "*", "~", "x" * 300, "🎧",
        "e\u0301", "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"), "169.254.169.254",
        "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "xn--", "xn--0", "localhost", "NaN", "1e999", "-0", "\t",
    ]
)  # fmt: skip
WORDS = st.one_of(
    NASTY, st.text(max_size=12), st.sampled_from(["file", "=", "&", "/", "a.WAV", ".vacd.biz", "https://"])
)
TEXTS = st.lists(WORDS, max_size=8).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.one_of(
    st.sampled_from(
        ["uii", "UII", " u-i_i ", "recordingUrl", "recording_url", "Segment Recording URL", "row_key", "date"]
    ),
    TEXTS,
)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass" if any("\ud800" <= c < "\udc80" for c in text) else "surrogateescape")


@st.composite
def csv_bodies(draw: st.DrawFn) -> bytes:
    width = draw(st.integers(1, 5))
    headings = [
        "UII",
        draw(st.sampled_from(["recording_url", "Segment Recording URL"])),
        *draw(st.lists(NAMES, max_size=4)),
    ]
    width = len(headings)
    cells = st.lists(TEXTS, min_size=width, max_size=draw(st.sampled_from([width, width, width, width + 1])))
    ending = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    quote = draw(st.sampled_from([lambda t: '"' + t.replace('"', '""') + '"', lambda t: t, lambda t: f'"{t}"']))
    lines = [headings, *draw(st.lists(cells, max_size=5))]
    return encoded(ending.join(",".join(map(quote, line)) for line in lines)) + draw(
        st.sampled_from([b"", b"\n", b"\x00"])
    )


@st.composite
def json_bodies(draw: st.DrawFn) -> bytes:
    rows = draw(st.lists(st.dictionaries(NAMES, JSON, max_size=5), max_size=5))
    for row in rows:
        row.setdefault("uii", "1")
        row.setdefault("recordingUrl", None)
        row.setdefault("segmentRecordingUrl", None)
    return json.dumps(rows, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    """A body with bytes cut out, put in or turned over, as a hostile or broken source has them."""
    body = bytearray(draw(bodies))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        kind = draw(st.sampled_from(["cut", "put", "flip", "repeat"]))
        if kind == "cut":
            del body[at : at + draw(st.integers(1, 40))]
        elif kind == "put":
            body[at:at] = draw(
                st.one_of(st.binary(max_size=8), st.sampled_from([b'"', b"\n", b",", b"[", b"]", b"{", b"\xff"]))
            )
        elif kind == "flip" and at < len(body):
            body[at] ^= draw(st.integers(1, 255))
        else:
            body += body[at : at + draw(st.integers(1, 40))]
    return bytes(body)


@st.composite
def links(draw: st.DrawFn) -> bytes:
    scheme = draw(st.sampled_from(["https", "http", "HTTPS", "ftp", "file", "//", "https:", "javascript"]))
    who = draw(st.sampled_from(["", "", "", "user@", "user:pass@", "@", "x.vacd.biz@", "x.vacd.biz:443@"]))
    host = draw(
        st.one_of(
            st.sampled_from(
                ["c.vacd.biz", "vacd.biz", "127.0.0.1", "localhost", "files.example.org", "9.0.0.1", "[::1]"]
            ),
            st.tuples(WORDS, st.sampled_from([".vacd.biz", ".vacd.biz.", ".vacd.biz.evil.example"])).map("".join),
            TEXTS,
        )
    )
    port = draw(st.sampled_from(["", "", ":443", ":8443", ":0", ":65536", ":-1", ":x", ":", ":000443", ":٤٤٣"]))
    query = "&".join(
        draw(st.lists(st.tuples(st.sampled_from(["file", "v", "fi%6ce", ""]), TEXTS).map("=".join), max_size=3))
    )
    return encoded(f"{scheme}://{who}{host}{port}/{draw(TEXTS)}?{query}#{draw(WORDS)}")


@st.composite
def wavs(draw: st.DrawFn) -> bytes:
    """Chunks in any order with any size claimed, plausible headers more often than not."""
    sizes = st.one_of(st.integers(0, 70), st.sampled_from([0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF7]))

    def chunk(name: bytes, body: bytes) -> bytes:
        announced = len(body) if draw(st.integers(0, 3)) else draw(sizes)
        return name + struct.pack("<I", announced) + body + b"\0" * (len(body) % 2 if draw(st.integers(0, 4)) else 0)

    channels, bits = draw(st.sampled_from([1, 2, 0, 3])), draw(st.sampled_from([8, 16, 24, 32, 4, 0]))
    tag = draw(st.sampled_from([1, 1, 1, 3, 6, 7, 0x31, 0xFFFE, 0]))
    align = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, draw(st.sampled_from([8000, 0, 44100])), 8000 * align, align, bits)
    form += draw(st.sampled_from([b"", b"\0\0", b"\x16\0" + bytes(6) + b"\1\0" + bytes(14)]))
    parts = [chunk(b"fmt ", form), chunk(b"data", draw(st.binary(max_size=40)))]
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from([b"LIST", b"fact", b"ds64", b"data", b"fmt ", b"bext", b"\0\0\0\0", b"JUNK"]))
        parts.insert(draw(st.integers(0, len(parts))), chunk(name, draw(st.binary(max_size=30))))
    body = b"WAVE" + b"".join(parts)
    announced = len(body) if draw(st.integers(0, 2)) else draw(sizes)
    return draw(st.sampled_from([b"RIFF", b"RIFF", b"RF64", b"BW64", b"RIFX"])) + struct.pack("<I", announced) + body


def _drive(name: str, bodies: st.SearchStrategy[bytes], how: settings) -> Callable[..., None]:
    @how
    @given(st.one_of(bodies, st.binary(max_size=200)))
    def run(body: bytes) -> None:
        claims.CLAIMS[name](body)

    return run


test_any_report_body_is_a_table_that_the_ledger_takes_or_refused_without_a_quote = _drive(
    "report", damaged(csv_bodies() | json_bodies() | st.sampled_from(claims.SEEDS["report"])), rarely
)
test_any_link_leads_to_a_listed_host_or_is_refused = _drive("link", links() | TEXTS.map(encoded), often)
test_any_wav_is_described_or_refused = _drive("wav", damaged(wavs() | st.sampled_from(claims.SEEDS["wav"])), often)
test_any_account_and_path_give_harmless_keys = _drive("key", st.tuples(TEXTS, TEXTS).map("|".join).map(encoded), often)
test_any_header_or_time_is_read_or_ignored = _drive(
    "header", TEXTS.map(encoded) | damaged(st.sampled_from(claims.SEEDS["header"])), often
)


@pytest.mark.parametrize("depth", [100, 400, 900, 5_000, 200_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_a_value_nested_however_deep_is_a_table_or_a_refusal(depth: int, brackets: str) -> None:
    opening, closing = ("[", "]") if brackets == "[]" else ('{"a":', "}")
    nested = opening * depth + "1" + closing * depth
    claims.CLAIMS["report"](f'[{{"uii":"1","recordingUrl":"x","segmentRecordingUrl":"x","x":{nested}}}]'.encode())


@pytest.mark.parametrize("name", claims.CLAIMS)
def test_the_seeds_of_every_claim_hold(name: str) -> None:
    for seed in claims.SEEDS[name]:
        claims.CLAIMS[name](seed)


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris, which not every Python has, is not installed"
)
@pytest.mark.parametrize("name", claims.CLAIMS)
def test_coverage_guided_fuzzing_finds_nothing(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), name, "-max_total_time=10", f"-artifact_prefix={tmp_path}/"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]

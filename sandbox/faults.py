"""The knobs: everything that can go wrong, chosen deterministically.

What a knob does to an answer is in `media.py`, `reports.py` and `app.py`; here is only what is chosen and for how long.

A `Where` says which subjects a knob takes and for how often. The subject of a media or link knob is the recording's
file path (of a segment, the path of its stereo file); of a row without recording, its UII; of a report knob,
`agent_segment_metadata/inbound`, `agent_segment_metadata/outbound`, `global_call_type_detail`, or a window's
`interaction_metadata/2026-03-09T03:00:00` by its start in UTC.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

NotReady = Literal["404", "202", "empty", "mixed"]

MEDIA_FAULTS = (
    "reset_early",
    "server_error",
    "throttled",
    "unauthorized",
    "forbidden",
    "not_found",
    "not_yet",
    "still_encoding",
    "empty_body",
    "html_200",
    "json_200",
    "mp3",
    "header_only",
    "cut_off",
    "cut_off_chunked",
    "cut_off_unframed",
    "reset",
    "redirect_other_host",
    "redirect_same_host",
    "slow",
)
"""In the order in which they are tried: the first that takes a request answers it."""

REPORT_FAULTS = (
    "report_reset",
    "report_server_error",
    "report_throttled",
    "report_unauthorized",
    "report_forbidden",
    "report_html_200",
    "report_json_error_200",
    "report_empty_body",
    "report_cut_off",
    "report_cut_off_chunked",
    "report_cut_off_unframed",
    "report_no_url_column",
    "report_wrong_width",
    "report_reordered",
    "report_bom",
    "report_csv",
    "metadata_cap",
    "metadata_backward",
)
"""In the order in which they are tried; the last six change the form and are combined."""

LINK_FAULTS = ("link_evil_host", "link_credentials", "link_http", "link_stray_blanks")

_CALL_DATE = re.compile(r"\d{6}/\d{2}/|\b\d{14}(?=\d{16}\b)")  # of a file's folder, and at the start of a UII
_FINAL = {
    "unauthorized": "denied",
    "forbidden": "denied",
    "not_found": "missing",
    "not_yet": "missing",
    "still_encoding": "missing",
    "redirect_same_host": "archived",
    "slow": "archived",
    "server_error": "pending",
    "throttled": "pending",
    "reset_early": "pending",
}


@dataclass(frozen=True, slots=True)
class Where:
    """Which subjects a knob takes.

    Attributes:
        share: This share of all subjects, 0 to 1, chosen by a hash of the subject without its date: the same ones
            of every date.
        paths: And these: exact, or patterns as in `*-session-2-stereo.WAV`.
        first: How many of the first requests (media) or pulls (rows, links, reports) are affected; None: all of them.
    """

    share: float = 0.0
    paths: tuple[str, ...] = ()
    first: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"A share lies between 0 and 1, not {self.share}.")

    @classmethod
    def parse(cls, value: object) -> Where:
        """Read the JSON forms: `0.1`, `["path", …]`, or `{"share": …, "paths": […], "first": …}`."""
        if isinstance(value, Where):
            return value
        if isinstance(value, bool):
            return cls(share=float(value))
        if isinstance(value, int | float):
            return cls(share=float(value))
        if isinstance(value, list | tuple):
            return cls(paths=tuple(str(item) for item in value))
        if isinstance(value, Mapping) and set(value) <= {"share", "paths", "first"}:
            first = value.get("first")
            return cls(
                float(value.get("share", 0)), tuple(value.get("paths", ())), None if first is None else int(first)
            )
        raise ValueError("A knob is a share, a list of paths, or an object with share, paths and first.")

    def takes(self, subject: str, *, name: str, seed: int) -> bool:
        """Whether the subject is chosen, at all."""
        if any(subject == path or fnmatchcase(subject, path) for path in self.paths):
            return True
        return self.share > 0 and lot(f"{seed}/{name}/{subject}") < self.share

    def lasts(self, earlier: int) -> bool:
        """Whether it still acts after `earlier` requests or pulls."""
        return self.first is None or earlier < self.first


def lot(text: str) -> float:
    """Draw from a text, from 0 to below 1. Dates and times of calls do not count: every date draws the same."""
    undated = _CALL_DATE.sub("", text)
    return int.from_bytes(hashlib.blake2b(undated.encode(), digest_size=8).digest(), "big") / 2**64


def _nowhere() -> Where:
    return Where()


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """All knobs. The default is a source that behaves as documented.

    Attributes:
        seed: Another seed chooses other recordings for the shares.
        late_rows: The row is missing from the first pulls that should show it.
        late_links: The row is there, its recording columns are empty, or `hasRecording` false (on the first pulls;
            without `first`, on all of them).
        link_evil_host: The link points to a host that nobody allowed (`SandboxConfig.evil_host`).
        link_credentials: The link carries a user and a password.
        link_http: The link is plain http to one of the vendor's hosts.
        link_stray_blanks: Blanks in the link's query, as in a sample that the vendor published.
        not_ready: What a recording answers before it is ready: 404, 202, an empty 200, or one of them by path.
        reset_early: The connection is reset before any byte of the answer.
        server_error: Answers `error_status`.
        throttled: Answers 429 with `Retry-After: retry_after_s`.
        unauthorized: Answers 401 whatever the credentials.
        forbidden: Answers 403.
        not_found: Answers 404.
        not_yet: The same once more, so that some never come while others only take a while.
        still_encoding: Answers 202 "still encoding".
        empty_body: Answers 200 with no byte.
        html_200: Answers 200 with a log-in page.
        json_200: Answers 200 with a JSON error.
        mp3: Answers 200 with an MP3 (which every browser-like `User-Agent` gets anyway).
        header_only: Answers 200 with a WAV of 44 bytes.
        cut_off: Declares the whole length, sends half, closes.
        cut_off_chunked: Sends half in chunks, closes without the last chunk.
        cut_off_unframed: Sends half with neither length nor chunks, closes: only the WAV's header tells.
        reset: Sends half, then resets the connection.
        redirect_other_host: Answers 302 to `evil_host`.
        redirect_same_host: Answers 302 to another path of the same host, which has the recording.
        slow: Sends `slow_bytes_per_s`.
        mono_file: The current API gives the segment's recording with one channel, which it may.
        report_…: The same for reports; `report_no_url_column`, `report_wrong_width`, `report_reordered` (and an
            unknown column), `report_bom` and `report_csv` (Global Call Type Detail as CSV) change the table's form.
        metadata_cap: Of a window of interaction metadata only the newest `metadata_cap_rows` rows are given.
        metadata_backward: The window ends at `segmentEndTime` instead of beginning there.
        token_seconds: Life of a RingCX access token.
    """

    seed: int = 0
    late_rows: Where = field(default_factory=_nowhere)
    late_links: Where = field(default_factory=_nowhere)
    link_evil_host: Where = field(default_factory=_nowhere)
    link_credentials: Where = field(default_factory=_nowhere)
    link_http: Where = field(default_factory=_nowhere)
    link_stray_blanks: Where = field(default_factory=_nowhere)
    not_ready: NotReady = "mixed"
    reset_early: Where = field(default_factory=_nowhere)
    server_error: Where = field(default_factory=_nowhere)
    throttled: Where = field(default_factory=_nowhere)
    unauthorized: Where = field(default_factory=_nowhere)
    forbidden: Where = field(default_factory=_nowhere)
    not_found: Where = field(default_factory=_nowhere)
    not_yet: Where = field(default_factory=_nowhere)
    still_encoding: Where = field(default_factory=_nowhere)
    empty_body: Where = field(default_factory=_nowhere)
    html_200: Where = field(default_factory=_nowhere)
    json_200: Where = field(default_factory=_nowhere)
    mp3: Where = field(default_factory=_nowhere)
    header_only: Where = field(default_factory=_nowhere)
    cut_off: Where = field(default_factory=_nowhere)
    cut_off_chunked: Where = field(default_factory=_nowhere)
    cut_off_unframed: Where = field(default_factory=_nowhere)
    reset: Where = field(default_factory=_nowhere)
    redirect_other_host: Where = field(default_factory=_nowhere)
    redirect_same_host: Where = field(default_factory=_nowhere)
    slow: Where = field(default_factory=_nowhere)
    mono_file: Where = field(default_factory=_nowhere)
    report_reset: Where = field(default_factory=_nowhere)
    report_server_error: Where = field(default_factory=_nowhere)
    report_throttled: Where = field(default_factory=_nowhere)
    report_unauthorized: Where = field(default_factory=_nowhere)
    report_forbidden: Where = field(default_factory=_nowhere)
    report_html_200: Where = field(default_factory=_nowhere)
    report_json_error_200: Where = field(default_factory=_nowhere)
    report_empty_body: Where = field(default_factory=_nowhere)
    report_cut_off: Where = field(default_factory=_nowhere)
    report_cut_off_chunked: Where = field(default_factory=_nowhere)
    report_cut_off_unframed: Where = field(default_factory=_nowhere)
    report_no_url_column: Where = field(default_factory=_nowhere)
    report_wrong_width: Where = field(default_factory=_nowhere)
    report_reordered: Where = field(default_factory=_nowhere)
    report_bom: Where = field(default_factory=_nowhere)
    report_csv: Where = field(default_factory=_nowhere)
    metadata_cap: Where = field(default_factory=_nowhere)
    metadata_backward: Where = field(default_factory=_nowhere)
    metadata_cap_rows: int = 400
    error_status: int = 503
    retry_after_s: int = 1
    slow_bytes_per_s: int = 64_000
    token_seconds: float = 300.0

    @classmethod
    def parse(cls, knobs: Mapping[str, Any], *, over: Faults | None = None) -> Faults:
        """Build from JSON; a knob that is not named keeps its value in `over` (default: no fault).

        Raises:
            ValueError: A name or a value that is not a knob.
        """
        base = over or cls()
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(knobs) - known):
            raise ValueError(f"No such knob: {', '.join(unknown)}.")
        values: dict[str, Any] = {name: getattr(base, name) for name in known}
        for name, value in knobs.items():
            current = values[name]
            if isinstance(current, Where):
                values[name] = Where.parse(value)
            elif name == "not_ready":
                if value not in ("404", "202", "empty", "mixed"):
                    raise ValueError("not_ready is 404, 202, empty or mixed.")
                values[name] = value
            else:
                values[name] = type(current)(value)
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """All knobs in the form that `parse` reads."""
        return asdict(self)

    def acts(self, name: str, subject: str, earlier: int) -> bool:
        """Whether the knob `name` acts on this subject after `earlier` requests or pulls."""
        where = self._where(name)
        return where.lasts(earlier) and where.takes(subject, name=name, seed=self.seed)

    def media_fault(self, path: str, earlier: int) -> str | None:
        """The fault that answers a request for this recording after `earlier` others, if any."""
        return next((name for name in MEDIA_FAULTS if self.acts(name, path, earlier)), None)

    def report_faults(self, report: str, earlier: int) -> frozenset[str]:
        """The faults of this pull of a report."""
        return frozenset(name for name in REPORT_FAULTS if self.acts(name, report, earlier))

    def not_ready_answer(self, path: str) -> Literal["404", "202", "empty"]:
        """What this recording answers before it is ready."""
        if self.not_ready == "mixed":
            choice = ("404", "202", "empty")[int(lot(f"{self.seed}/not_ready/{path}") * 3)]
            return cast("Literal['404', '202', 'empty']", choice)
        return self.not_ready

    def touching(self, path: str) -> list[str]:
        """The names of all knobs that ever act on this recording."""
        names = ("late_rows", "late_links", *LINK_FAULTS, *MEDIA_FAULTS)
        return [name for name in names if self.acts(name, path, 0)]

    def expected_state(self, path: str) -> str:
        """How an archiver's record of this recording should end, once it has been patient.

        `archived`, `missing`, `rejected`, `denied`; `unlinked` if no row will ever link it; `pending` if the source
        never gives an answer that decides (always 5xx, 429 or a reset).
        """
        permanent = [name for name in self.touching(path) if self._where(name).first is None]
        if "late_rows" in permanent or "late_links" in permanent:
            return "unlinked"
        if any(name in permanent for name in LINK_FAULTS if name != "link_stray_blanks"):
            return "rejected"
        for name in MEDIA_FAULTS:
            if name in permanent:
                return _FINAL.get(name, "rejected")
        return "archived"

    def link_fault(self, path: str) -> Iterator[str]:
        """The link knobs that act on this recording."""
        return (name for name in LINK_FAULTS if self.acts(name, path, 0))

    def _where(self, name: str) -> Where:
        value = getattr(self, name)
        if not isinstance(value, Where):
            raise TypeError(f"{name} chooses no subjects.")
        return value

"""One attempt at one recording: take what is already in the bucket, or fetch, verify and store it.

Returns what happened; what that means for the recording's state is decided in `outcomes.py`.
"""

from __future__ import annotations

import errno
import hashlib
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import BinaryIO, cast

from pipelines.archive import keys
from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import Conflict, KeyExists, NameTaken, StorageUnavailable, StoreDamaged
from pipelines.archive.silence import silent_channels
from pipelines.archive.transfer import Stored, Upload, adopt, store
from pipelines.archive.wav import NotARecording, WavInfo, inspect_wav
from pipelines.ledger.states import Layout, RecordingState, RetryRules
from pipelines.ringcx.errors import LinkRefused
from pipelines.ringcx.limits.limiter import check_stop
from pipelines.ringcx.media import Fetched, MediaClient, MediaFault
from pipelines.ringcx.reports.interactions import is_segment_link
from pipelines.steps.fetch.outcomes import Fault, may_be_last
from pipelines.steps.link.matching import AMBIGUOUS
from pipelines.steps.link.register_links import LINK_REFUSED, AllowedLinks
from pipelines.steps.link.rows import INTERACTIONS

# A report rounds to seconds and counts ringing and hold differently: only a plain disagreement is worth a warning.
DURATION_TOLERANCE_S = 5.0
DURATION_TOLERANCE_SHARE = 0.2
LENGTH_UNPROVEN = "length_unproven"
HEADER_DISAGREES = "header_disagrees"
FIREWALL = "refused_by_firewall"
_CHANNELS: Mapping[Layout, int] = {"mono": 1, "stereo": 2}
# Reasons under which bytes may be a recording all the same: none of a web page, JSON or another text.
_MAYBE_AUDIO = frozenset(
    {"cut_off", "too_large", "mp3_body", "not_riff", "not_wave", "no_fmt", "bad_fmt", "no_data", "header_only"}
)
_IN_MEMORY = 8 << 20  # a longer body waits on disk, under TMPDIR
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# A redirect off the allow-list; a name that leads into a private network.
OUR_REFUSALS = frozenset({"redirect_not_allowed", "address_not_public"})


class TemporaryDiskFull(Exception):  # noqa: N818 - the sentence that the run ends with
    """A recording did not fit into the temporary folder. It says nothing about the recording, which stays pending."""

    def __init__(self) -> None:
        super().__init__(
            f"The disk of the temporary folder {tempfile.gettempdir()} is full, so recordings larger than "
            f"{_IN_MEMORY >> 20} MiB could not be received: they stay pending and are fetched by a later run. Free "
            "space there, or set TMPDIR to a folder on a larger disk."
        )


@dataclass(frozen=True, slots=True)
class Done:
    """How an attempt ended: with `stored`, with a `fault`, or with a `conflict` (other bytes are stored under its key).

    `state` is the one before it; of a body that was not archived it has the hash, the size and the quarantine. `at` is
    when a fault was met: by that time it was decided what becomes of the bytes.
    """

    state: RecordingState
    stored: Stored | None = None
    fault: Fault | None = None
    conflict: Conflict | None = None
    at: datetime | None = None
    duration_s: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorders:
    """Where recordings come from: `links` of the reports, and `segments` of the current API, where that is set."""

    allowed: AllowedLinks
    links: MediaClient
    segments: MediaClient | None = None

    def fetch(self, state: RecordingState, sink: BinaryIO) -> Fetched:
        """Write `state`'s recording into `sink`; raises as `MediaClient.fetch`.

        Raises:
            LinkRefused: also where the settings no longer allow it.
        """
        self.allowed.require(state)
        ours = self.segments if self.allowed.is_segment(state) else None
        return (ours or self.links).fetch(state.link, state.account_id, sink)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What every attempt of a run needs; thread-safe.

    Attributes:
        existing: the keys that the day's listing showed.
        quarantine_bytes: the most that is kept of a body that is refused for good.
    """

    bucket: Bucket
    media: Recorders
    existing: Collection[str]
    stop: threading.Event
    rules: RetryRules
    clock: Callable[[], datetime]
    quarantine_bytes: int

    def __call__(self, state: RecordingState, key: str) -> Done:
        """Bring `state`'s recording under `key`.

        Raises:
            Stopped: the run is ending.
            StorageRefused: the bucket does not take what is put.
            AccountUnknown: the source does not know the account, so nothing can be said about any recording.
            TemporaryDiskFull: the body does not fit into the temporary folder.
        """
        try:
            return self._adopted(state, key) or self._fetched(state, key)
        except LinkRefused as refusal:  # the settings allow less than when the link was judged
            return Done(state, fault=Fault("not_audio", f"{LINK_REFUSED}{refusal.reason}"))
        except StorageUnavailable:
            return Done(state, fault=Fault("unavailable", "storage_unavailable"))
        except StoreDamaged:
            return Done(state, fault=Fault("unavailable", "storage_damaged"))
        except Conflict as conflict:
            return Done(state, conflict=conflict)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise TemporaryDiskFull from error
            raise

    def _adopted(self, state: RecordingState, key: str) -> Done | None:
        for name in possible_keys(self.bucket.prefix, state, key) if self.existing else ():
            if name in self.existing and (adopted := adopt(self.bucket, name, state.recording_id)):
                stored, wav = adopted
                unproven = state.reason == LENGTH_UNPROVEN and wav.proof != "whole"
                doubt = LENGTH_UNPROVEN if unproven else HEADER_DISAGREES if wav.disagrees else None
                return _done(state, stored, wav, doubt)
        return None

    def _fetched(self, state: RecordingState, key: str) -> Done:
        check_stop(self.stop)
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
            body = cast("BinaryIO", spool)  # a spooled file is one in all but its stub
            try:
                fetched = self.media.fetch(state, body)
                wav = inspect_wav(body, fetched.size)
                doubt = _doubt(wav, framed=fetched.framed)
            except MediaFault as fault:
                # What we refuse ourselves says nothing of the log-in.
                kind = "not_audio" if fault.reason in OUR_REFUSALS else fault.kind
                reason = FIREWALL if fault.by_firewall else fault.reason
                return self._refused(state, key, body, Fault(kind, reason))
            except NotARecording as fault:
                return self._refused(state, key, body, Fault("not_audio", fault.reason))
            if doubt and not self._is_believed(state, fetched, doubt):
                longest = max(fetched.size, state.body_size or 0)
                seen = replace(state, body_sha256=fetched.sha256, body_size=longest)
                return Done(seen, fault=Fault("unproven", doubt))
            upload = Upload(
                key=key,
                recording_id=state.recording_id,
                account_id=state.account_id,
                uii=state.uii,
                layout=state.layout,
                source=state.source,
                sha256=fetched.sha256,
                size=fetched.size,
            )
            silent = tuple(f"channel_{number}_silent" for number in silent_channels(body, wav))
            return _done(state, self._store(upload, body), wav, doubt, silent)

    def _is_believed(self, state: RecordingState, fetched: Fetched, doubt: str) -> bool:
        """Whether a body whose length is in doubt is kept: HTTP framed it and it came twice; or it is time to keep
        what there is, and no longer one was seen.
        """
        same = fetched.sha256 == state.body_sha256
        if doubt == HEADER_DISAGREES and same:
            return True
        return may_be_last(state, self.rules, self.clock()) and (same or fetched.size >= (state.body_size or 0))

    def _refused(self, state: RecordingState, key: str, body: BinaryIO, fault: Fault) -> Done:
        """What is no recording. If this may be the last attempt and the bytes may be audio, they go to quarantine."""
        now = self.clock()
        if fault.reason in _MAYBE_AUDIO and may_be_last(state, self.rules, now):
            body.seek(0)
            if data := body.read(self.quarantine_bytes):
                state = replace(state, quarantine_key=self._quarantine(state, key, data, fault.reason))
        return Done(state, fault=fault, at=now)

    def _quarantine(self, state: RecordingState, key: str, data: bytes, reason: str) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        name = keys.copy_key("quarantine", self.bucket.prefix, key, sha256)
        metadata = {"sha256": sha256, "recording-id": keys.metadata_text(state.recording_id), "reason": reason}
        with suppress(KeyExists):  # an earlier run kept it: its name holds its hash
            self.bucket.put_new(name, data, sha256=sha256, content_type="application/octet-stream", metadata=metadata)
        return name

    def _store(self, upload: Upload, body: BinaryIO) -> Stored:
        try:
            return store(self.bucket, upload, body)
        except NameTaken:
            # Two files of one name in two folders of the source: the second is kept under a key next to the first.
            return store(self.bucket, replace(upload, key=keys.apart_key(upload.key, upload.recording_id)), body)


def possible_keys(prefix: str, state: RecordingState, key: str) -> set[str]:
    """Return where an earlier run may have put it, which perhaps knew fewer recordings of that file name."""
    plain = keys.recording_key(prefix, state.date, state.account_id, state.layout, file_path(state))
    return {key, plain, *(keys.apart_key(name, state.recording_id) for name in (key, plain))}


def file_path(state: RecordingState) -> str:
    """The source's path of the file, by the recording's id; of a segment the name that its file gets."""
    path = state.recording_id.removeprefix(f"{state.account_id}/")
    return f"{path.replace('/', '_')}.wav" if is_segment(state) else path


def is_ours(fault: Fault) -> bool:
    """Whether our own settings refuse the link, whatever the source would have said."""
    return fault.reason.startswith(LINK_REFUSED) or fault.reason in OUR_REFUSALS


def is_segment(state: RecordingState) -> bool:
    """Whether the recording is known by dialog and segment, as the current API knows it."""
    return state.source == INTERACTIONS and is_segment_link(state.link)


def duration_differs(expected: float | None, heard: float | None) -> bool:
    """Whether a recording's length (s) plainly disagrees with the report's; False where one of them is not known."""
    if expected is None or heard is None:
        return False
    return abs(heard - expected) > max(DURATION_TOLERANCE_S, DURATION_TOLERANCE_SHARE * expected)


def _doubt(wav: WavInfo, *, framed: bool) -> str | None:
    """What speaks against all of a recording being there; None if that is proven by HTTP or by the header.

    Raises:
        NotARecording: some of it is missing.
    """
    if framed:
        return HEADER_DISAGREES if wav.disagrees else None
    if wav.proof == "cut_off":
        raise NotARecording("cut_off", "The WAV ends before the length that its data chunk gives")
    return LENGTH_UNPROVEN if wav.proof == "nothing" else None


def _done(state: RecordingState, stored: Stored, wav: WavInfo, doubt: str | None, silent: tuple[str, ...] = ()) -> Done:
    """A recording that is held, with all that is odd about it."""
    is_16_bit_pcm = wav.format_tag == 1 and wav.bits_per_sample == 16
    mono_segment = is_segment(state) and state.layout == "stereo" and wav.channels == 1
    odd = {
        AMBIGUOUS: AMBIGUOUS in state.warnings,
        "duration_differs": duration_differs(state.expected_duration_s, wav.duration_s),
        "mono_segment": mono_segment,
        "channels_unexpected": wav.channels != _CHANNELS[state.layout] and not mono_segment,
        "codec_unexpected": not is_16_bit_pcm,
        "big_endian": wav.big_endian,
        str(doubt): doubt is not None,
    }
    warnings = (*(warning for warning, holds in odd.items() if holds), *silent)
    return Done(state, stored=stored, duration_s=wav.duration_s, warnings=warnings)

"""One attempt at one recording: adopt what is already in the bucket, or fetch, verify and store the recording."""

import hashlib
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import BinaryIO, cast

from pipelines.archive import keys
from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import Conflict, KeyExists, NameTaken, StorageUnavailable, StoreDamaged
from pipelines.archive.silence import silent_channels
from pipelines.archive.transfer import Stored, Upload, adopt, store
from pipelines.archive.wav import NotARecording, WavInfo, duration_differs, inspect_wav
from pipelines.errors import on_temporary_disk
from pipelines.ledger.states import Layout, RecordingState
from pipelines.ringcx.errors import LinkRefused
from pipelines.ringcx.http.client import Received
from pipelines.ringcx.limits.limiter import check_stop
from pipelines.ringcx.media import MediaClient, MediaFault
from pipelines.steps.fetch.outcomes import Archived, Failed, Fault, RetryRules, may_be_last
from pipelines.steps.fetch.work_queue import WorkItem
from pipelines.steps.link.allowed_links import LINK_REFUSED, AllowedLinks, is_segment
from pipelines.steps.link.matching import AMBIGUOUS

LENGTH_UNPROVEN = "length_unproven"
HEADER_DISAGREES = "header_disagrees"
FIREWALL = "refused_by_firewall"
_G711 = frozenset({6, 7})  # A-law and u-law, in which telephone networks carry speech
_CHANNELS: Mapping[Layout, int] = {"mono": 1, "stereo": 2}
# Reasons for which the bytes may still be a recording: not those of a web page, JSON or another text.
_MAYBE_AUDIO = frozenset(
    {"cut_off", "too_large", "mp3_body", "not_riff", "not_wave", "no_fmt", "bad_fmt", "no_data", "header_only"}
)
_IN_MEMORY = 8 << 20  # a longer body waits on disk, under TMPDIR
_DISK_FULL = (
    f"recordings larger than {_IN_MEMORY >> 20} MiB could not be received: they stay pending and are fetched by a "
    "later run"
)
# Our own refusals prove nothing about the log-in: a redirect off the allow-list, a name in a private network.
_OUR_REFUSALS = frozenset({"redirect_not_allowed", "address_not_public"})


@dataclass(frozen=True, slots=True)
class RecordingClients:
    """The clients that fetch recordings: `links` of the reports, and `segments` of the current API, if it is set up."""

    allowed: AllowedLinks
    links: MediaClient
    segments: MediaClient | None = None

    def fetch(self, state: RecordingState, sink: BinaryIO) -> Received:
        """Write a recording into `sink`; raise the errors of `MediaClient.fetch`, or LinkRefused for its link."""
        if reason := self.allowed.refusal(state):
            raise LinkRefused(reason)
        segments = self.segments if self.allowed.is_segment(state) else None
        return (segments or self.links).fetch(state.link, state.account_id, sink)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a recording; thread-safe. `quarantine_bytes`: the maximum to keep of a rejected body."""

    bucket: Bucket
    media: RecordingClients
    stop: threading.Event
    rules: RetryRules
    clock: Callable[[], datetime]
    quarantine_bytes: int

    def __call__(self, item: WorkItem, existing: Collection[str]) -> Archived | Failed:
        """Store the recording under the item's key, or adopt it from one of the `existing` keys.

        Raises Stopped, StorageRefused (the bucket refuses this recording), AccountUnknown (no answer is about a
        recording) or TemporaryDiskFull.
        """
        try:
            with on_temporary_disk(_DISK_FULL):
                return self._adopt(item.state, existing) or self._fetch(item)
        except LinkRefused as refusal:  # the settings allow less than when the link was judged
            fault = Fault("not_allowed", f"{LINK_REFUSED}{refusal.reason}")
        except StorageUnavailable:
            fault = Fault("unavailable", "storage_unavailable")
        except StoreDamaged:
            fault = Fault("unavailable", "storage_damaged")
        except Conflict:
            fault = Fault("conflict", "conflict")
        return Failed(item.state, self.clock(), fault)

    def _adopt(self, state: RecordingState, existing: Collection[str]) -> Archived | None:
        for key in existing:
            if adopted := adopt(self.bucket, key, state.recording_id):
                stored, wav = adopted
                length_warning = HEADER_DISAGREES if wav.disagrees else None
                if state.reason == LENGTH_UNPROVEN and wav.proof != "whole":
                    length_warning = LENGTH_UNPROVEN
                return self._archived(state, stored, wav, length_warning)
        return None

    def _fetch(self, item: WorkItem) -> Archived | Failed:
        check_stop(self.stop)
        state = item.state
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
            body = cast("BinaryIO", spool)  # which it is, except in the stubs
            try:
                fetched = self.media.fetch(state, body)
                wav = inspect_wav(body, fetched.size)
                length_warning = _length_warning(wav, framed=fetched.framed)
            except MediaFault as fault:
                kind = "not_allowed" if fault.reason in _OUR_REFUSALS else fault.kind
                reason = FIREWALL if fault.by_firewall else fault.reason
                return self._refused(item, body, Fault(kind, reason))
            except NotARecording as fault:
                return self._refused(item, body, Fault("not_audio", fault.reason))
            if length_warning and not self._is_believed(state, fetched, length_warning):
                unproven = replace(state, body_sha256=fetched.sha256, body_size=max(fetched.size, state.body_size or 0))
                return Failed(unproven, self.clock(), Fault("unproven", length_warning))
            silent = [f"channel_{number}_silent" for number in silent_channels(body, wav)]
            stored = self._store(item, fetched, body)
            return self._archived(state, stored, wav, length_warning, silent)

    def _store(self, item: WorkItem, fetched: Received, body: BinaryIO) -> Stored:
        state = item.state
        upload = Upload(
            key=item.key,
            recording_id=state.recording_id,
            uii=state.uii,
            layout=state.layout,
            source=state.source,
            sha256=fetched.sha256,
            size=fetched.size,
        )
        try:
            return store(self.bucket, upload, body)
        except NameTaken:
            # Two files of one name in two folders of the source: the second is kept under a key next to the first.
            apart = keys.apart_key(item.key, state.recording_id)
            return store(self.bucket, replace(upload, key=apart), body)

    def _is_believed(self, state: RecordingState, fetched: Received, length_warning: str) -> bool:
        """Return whether to keep a body of doubtful length: HTTP framed it and it came twice, or this may be the last
        attempt and no longer body came before.
        """
        same = fetched.sha256 == state.body_sha256
        if length_warning == HEADER_DISAGREES and same:
            return True
        return may_be_last(state, self.rules, self.clock()) and (same or fetched.size >= (state.body_size or 0))

    def _refused(self, item: WorkItem, body: BinaryIO, fault: Fault) -> Failed:
        """Return the fault for a body that is no recording; before a last attempt, quarantine it if it may be audio."""
        now = self.clock()
        state = item.state
        if fault.reason in _MAYBE_AUDIO and may_be_last(state, self.rules, now):
            body.seek(0)
            if data := body.read(self.quarantine_bytes):
                state = replace(state, quarantine_key=self._quarantine(item, data, fault.reason))
        return Failed(state, now, fault)

    def _quarantine(self, item: WorkItem, data: bytes, reason: str) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        key = keys.copy_key("quarantine", self.bucket.prefix, item.key, sha256)
        recording_id = keys.metadata_text(item.state.recording_id)
        facts = {"sha256": sha256, "recording-id": recording_id, "reason": reason}
        with suppress(KeyExists):  # an earlier run kept it: its name holds its hash
            self.bucket.put_new(key, data, sha256=sha256, content_type="application/octet-stream", metadata=facts)
        return key

    def _archived(
        self, state: RecordingState, stored: Stored, wav: WavInfo, warning: str | None, silent: Sequence[str] = ()
    ) -> Archived:
        is_16_bit_pcm = wav.format_tag == 1 and wav.bits_per_sample == 16
        mono_segment = is_segment(state.source, state.link) and state.layout == "stereo" and wav.channels == 1
        odd = {
            AMBIGUOUS: AMBIGUOUS in state.warnings,
            "duration_differs": duration_differs(state.expected_duration_s, wav.duration_s),
            "mono_segment": mono_segment,
            "channels_unexpected": wav.channels != _CHANNELS[state.layout] and not mono_segment,
            "codec_g711": wav.format_tag in _G711,
            "codec_unexpected": not is_16_bit_pcm and wav.format_tag not in _G711,
            "big_endian": wav.big_endian,
        }
        warnings = [name for name, holds in odd.items() if holds]
        if warning:
            warnings.append(warning)
        return Archived(state, self.clock(), stored, wav.duration_s, (*warnings, *silent))


def _length_warning(wav: WavInfo, *, framed: bool) -> str | None:
    """Return why part of a recording may be missing, None if it is proven whole; raise NotARecording if part is
    missing.
    """
    if framed:
        return HEADER_DISAGREES if wav.disagrees else None
    if wav.proof == "cut_off":
        raise NotARecording("cut_off", "The WAV ends before the length that its data chunk gives")
    return LENGTH_UNPROVEN if wav.proof == "nothing" else None

"""One attempt at one recording: take what is already in the bucket, or fetch, verify and store it.

Returns what happened; what that means for the recording's state is decided in `verdicts.py`.
"""

from __future__ import annotations

import errno
import tempfile
import threading
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from pipelines.archive import keys
from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import Conflict, NameTaken, StorageUnavailable, StoreDamaged
from pipelines.archive.sound import silent_channels
from pipelines.archive.transfer import Stored, Upload, adopt, store
from pipelines.archive.wav import NotARecording, WavInfo, inspect_wav
from pipelines.ledger.states import Layout, RecordingState
from pipelines.ringcx.errors import LinkRefused
from pipelines.ringcx.limits import check_stop
from pipelines.ringcx.media import Fetched, MediaClient, MediaFault
from pipelines.ringcx.segments import is_segment_link
from pipelines.steps.counterparts import AMBIGUOUS
from pipelines.steps.links import LINK_REFUSED, AllowedLinks
from pipelines.steps.rows import INTERACTIONS
from pipelines.steps.verdicts import Fault

# A report rounds to seconds and counts ringing and hold differently: only a plain disagreement is worth a warning.
DURATION_TOLERANCE_S = 5.0
DURATION_TOLERANCE_SHARE = 0.2
# A redirect off the allow-list; a name that leads into a private network.
_IN_MEMORY = 8 << 20  # a longer body waits on disk, under TMPDIR
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
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
    """How one attempt ended: with `stored`, or with a `fault`, or with a `conflict` (other bytes lie under its key)."""

    state: RecordingState
    stored: Stored | None = None
    fault: Fault | None = None
    conflict: Conflict | None = None
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
    """What every attempt of a run needs; thread-safe. `existing` holds the keys that the day's listing showed."""

    bucket: Bucket
    media: Recorders
    existing: Collection[str]
    stop: threading.Event

    def __call__(self, state: RecordingState, key: str) -> Done:
        """Bring `state`'s recording under `key`.

        Raises:
            Stopped: the run is ending.
            StorageRefused: the bucket does not take what is put.
            TemporaryDiskFull: the body does not fit into the temporary folder.
        """
        try:
            return self._adopted(state, key) or self._fetched(state, key)
        except MediaFault as fault:
            # What we refuse ourselves says nothing of the log-in.
            kind = "not_audio" if fault.reason in OUR_REFUSALS else fault.kind
            return Done(state, fault=Fault(kind, fault.reason))
        except LinkRefused as refusal:  # the settings allow less than when the link was judged
            return Done(state, fault=Fault("not_audio", f"{LINK_REFUSED}{refusal.reason}"))
        except NotARecording as fault:
            return Done(state, fault=Fault("not_audio", fault.reason))
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
        for name in self._names(state, key) if self.existing else ():
            if name in self.existing and (kept := adopt(self.bucket, name, state.recording_id, channels_of(state))):
                return _done(state, kept.stored, kept.wav)
        return None

    def _fetched(self, state: RecordingState, key: str) -> Done:
        check_stop(self.stop)
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
            body = cast("BinaryIO", spool)  # a spooled file is one in all but its stub
            fetched = self.media.fetch(state, body)
            wav = inspect_wav(body, fetched.size, channels_of(state))
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
            return _done(state, self._store(upload, body), wav, silent)

    def _names(self, state: RecordingState, key: str) -> set[str]:
        """Where an earlier run may have put it, which perhaps knew fewer recordings of that file name."""
        plain = keys.recording_key(self.bucket.prefix, state.date, state.account_id, state.layout, file_path(state))
        return {key, plain, *(keys.apart_key(name, state.recording_id) for name in (key, plain))}

    def _store(self, upload: Upload, body: BinaryIO) -> Stored:
        try:
            return store(self.bucket, upload, body)
        except NameTaken:
            # Two files of one name in two folders of the source: the second is kept beside the first.
            return store(self.bucket, replace(upload, key=keys.apart_key(upload.key, upload.recording_id)), body)


def file_path(state: RecordingState) -> str:
    """The source's path of the file, by the recording's id; of a segment the name that its file gets."""
    path = state.recording_id.removeprefix(f"{state.account_id}/")
    return f"{path.replace('/', '_')}.wav" if is_segment(state) else path


def is_segment(state: RecordingState) -> bool:
    """Whether the recording is known by dialog and segment, as the current API knows it."""
    return state.source == INTERACTIONS and is_segment_link(state.link)


def channels_of(state: RecordingState) -> Layout | None:
    """The layout that the file must have; None where the source does not promise one."""
    return None if is_segment(state) else state.layout


def duration_differs(expected: float | None, heard: float | None) -> bool:
    """Whether a recording's length (s) plainly disagrees with the report's; False where one of them is not known."""
    if expected is None or heard is None:
        return False
    return abs(heard - expected) > max(DURATION_TOLERANCE_S, DURATION_TOLERANCE_SHARE * expected)


def _done(state: RecordingState, stored: Stored, wav: WavInfo, silent: tuple[str, ...] = ()) -> Done:
    differs = ("duration_differs",) if duration_differs(state.expected_duration_s, wav.duration_s) else ()
    mono = ("mono_segment",) if state.layout == "stereo" and wav.channels == 1 else ()
    known = tuple(one for one in state.warnings if one == AMBIGUOUS)
    return Done(state, stored=stored, duration_s=wav.duration_s, warnings=(*known, *differs, *mono, *silent))

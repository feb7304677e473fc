"""Transfer of recordings into the archive: no recording is stored twice, and nothing is overwritten.

A killed run, a lost answer and a concurrent run all lead to the same case: an object is stored under the key, it is
read, and equal bytes are adopted. Nothing is ever deleted.
"""

import tempfile
from dataclasses import dataclass
from typing import BinaryIO, cast

from pipelines.archive.bucket import Bucket, ObjectFacts, Put
from pipelines.archive.errors import Conflict, KeyExists, KeyMissing, NameTaken, StorageUnavailable, StoreDamaged
from pipelines.archive.keys import copy_key, metadata_text
from pipelines.archive.wav import NotARecording, WavInfo, inspect_wav

_IN_MEMORY = 4 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """A recording about to be stored. `sha256` is in hex, `size` in bytes."""

    key: str
    recording_id: str
    uii: str
    layout: str
    source: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A recording in the archive. `adopted`: it was already stored, with the same bytes."""

    key: str
    size: int
    sha256: str
    etag: str
    version_id: str | None
    adopted: bool


def store(bucket: Bucket, upload: Upload, body: BinaryIO) -> Stored:
    """Put a recording under its key, or adopt the equal object that is already stored.

    `body` is seekable and holds exactly the recording; it is read from its beginning, block by block. Raises NameTaken
    if another recording is stored there (store this one under `keys.apart_key`); Conflict if this recording is stored
    there with other bytes, damaged or not (the new ones are kept under the conflict key); and StoreDamaged if the
    object just stored, or the copy under the conflict key, does not hold the bytes that were sent: it does not count.
    """
    try:
        put = _put(bucket, upload.key, upload, body)
    except KeyExists:
        if found := bucket.head(upload.key):
            return _settle(bucket, upload, body, found)
        raise StorageUnavailable(
            f"A put of {upload.key} in the bucket {bucket.name} was refused because an object was stored there, "
            "but that object was gone afterwards; find out what deletes objects there. The next run continues from here"
        ) from None
    return Stored(upload.key, upload.size, upload.sha256, put.etag, put.version_id, adopted=False)


def adopt(bucket: Bucket, key: str, recording_id: str) -> tuple[Stored, WavInfo] | None:
    """Adopt an object that a killed run left behind; return None if the recording must be fetched: nothing is stored
    there, or the object is another recording, has no metadata, is damaged, or is not a recording.
    """
    found = bucket.head(key)
    if found is None or found.sha256 is None or found.recording_id != metadata_text(recording_id):
        return None
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
        copy = cast("BinaryIO", spool)  # a spooled file is one in all but its stub
        try:
            read = bucket.hash_object(key, copy)
            if read != (found.size, found.sha256):
                return None
            wav = inspect_wav(copy, read.size)
        except (KeyMissing, NotARecording):
            return None
    return Stored(key, read.size, read.sha256, found.etag, found.version_id, adopted=True), wav


def _settle(bucket: Bucket, upload: Upload, body: BinaryIO, found: ObjectFacts) -> Stored:
    """Return the recording stored under the key if it is this one; otherwise keep the new bytes apart, or raise."""
    ours, held = metadata_text(upload.recording_id), ""
    # Metadata only claims what is stored, and a checksum may be an echo: read the object itself.
    if found.recording_id in {None, ours}:
        held = bucket.hash_object(upload.key).sha256
        if held == upload.sha256:
            return Stored(upload.key, upload.size, upload.sha256, found.etag, found.version_id, adopted=True)
    # Another recording's id, or no id (some servers lose metadata) and different bytes: neither copy may win.
    if found.recording_id != ours:
        raise NameTaken(f"Another recording is stored under {upload.key}; nothing was written")
    # Another version of the same recording, or a damaged one: ours is kept too, since the source will purge it.
    kept_as = copy_key("conflicts", bucket.prefix, upload.key, upload.sha256)
    try:
        _put(bucket, kept_as, upload, body)
    except KeyExists:
        # An earlier run kept it, under a name that holds its hash.
        if bucket.hash_object(kept_as).sha256 != upload.sha256:
            raise StoreDamaged(
                f"The object {kept_as} in the bucket {bucket.name} does not match the hash in its name; "
                "delete it and run the date again"
            ) from None
    raise Conflict(f"{upload.key} holds SHA-256 {held}; what the source sends now is kept as {kept_as}")


def _put(bucket: Bucket, key: str, upload: Upload, body: BinaryIO) -> Put:
    metadata = {
        "sha256": upload.sha256,
        "recording-id": metadata_text(upload.recording_id),
        "uii": metadata_text(upload.uii),
        "source": metadata_text(upload.source),
        "layout": metadata_text(upload.layout),
    }
    return bucket.put_new(
        key, body, sha256=upload.sha256, content_type="audio/wav", metadata=metadata, storage_class=bucket.storage_class
    )

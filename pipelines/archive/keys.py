"""The keys of objects.

File paths and account ids come from the source and may be hostile: unless one is plainly harmless, its hash replaces
it. A `prefix` ends in a slash, or is empty.
"""

import hashlib
import re
from datetime import date
from posixpath import splitext
from typing import Literal
from urllib.parse import quote

Layout = Literal["mono", "stereo"]

_HASHED = "sha256-"
_MANIFEST = re.compile(r"(?:.*/)?manifests/date=[^/]+/manifest-([1-9][0-9]{0,9})\.json", re.ASCII | re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)
_ACCOUNT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", re.ASCII)
_METADATA_LIMIT = 512  # S3 takes 2 KB of metadata in all, for five values


def recording_key(prefix: str, day: date, account_id: str, layout: Layout, file_path: str) -> str:
    """Return the key of a recording: `{prefix}recordings/date=…/account_id=…/layout=…/<name>`.

    `day` is the local day on which the recording itself starts. Of the source's `file_path` only the last segment is
    used, and only when it is harmless.
    """
    name = file_path.rpartition("/")[2]
    # The hash is of the whole path: two harmful names in two folders then differ without help from apart_key.
    harmless = _harmless(name, _NAME, file_path)
    account = _harmless(account_id, _ACCOUNT, account_id)
    suffix = "" if harmless == name else ".wav"
    return f"{day_prefix(prefix, day)}account_id={account}/layout={layout}/{harmless}{suffix}"


def apart_key(key: str, recording_id: str) -> str:
    """Return a key for another recording that has the same file name: `<stem>-<8 hex of its id's hash><suffix>`."""
    stem, suffix = splitext(key)
    return f"{stem}-{_sha256(recording_id)[:8]}{suffix}"


def copy_key(folder: Literal["conflicts", "quarantine"], prefix: str, key: str, sha256: str) -> str:
    """Return the key of a copy that does not count as the recording: `{prefix}{folder}/date=…/…/<16 hex>-<name>`."""
    path, slash, name = key.removeprefix(f"{prefix}recordings/").rpartition("/")
    return f"{prefix}{folder}/{path}{slash}{sha256[:16]}-{name}"


def day_prefix(prefix: str, day: date) -> str:
    """Return the prefix of all keys of a day's recordings."""
    return f"{prefix}recordings/date={day.isoformat()}/"


def manifest_prefix(prefix: str, day: date) -> str:
    """Return the prefix of all keys of a day's manifests."""
    return f"{prefix}manifests/date={day.isoformat()}/"


def manifest_key(prefix: str, day: date, number: int) -> str:
    """Return the key of a day's manifest with this number, counted from 1."""
    return f"{manifest_prefix(prefix, day)}manifest-{number}.json"


def manifest_number(key: str) -> int | None:
    """Return the number in a manifest's key, or None if the key does not belong to a manifest."""
    match = _MANIFEST.fullmatch(key)
    return int(match[1]) if match else None


def signature_key(key: str) -> str:
    """Return the key of the signature of the manifest stored under `key`."""
    return f"{key}.sig"


def attestation_prefix(prefix: str, kind: str, day: date) -> str:
    """Return the prefix of all keys of a day's attestations of one kind, which is a folder's name."""
    return f"{prefix}witnesses/{kind}/date={day.isoformat()}/"


def access_prefix(prefix: str, day: date) -> str:
    """Return the prefix of all keys of a day's access log entries; `day` is the UTC day of the access."""
    return f"{prefix}access/date={day.isoformat()}/"


def verification_key(prefix: str, day: date, name: str) -> str:
    """Return the key of a restore drill's result; `day` is the local day of the drill, `name` is unique."""
    return f"{prefix}verifications/date={day.isoformat()}/{name}.json"


def probe_key(prefix: str, name: str) -> str:
    """Return the key of a tiny object that only tests the store; `name` says what it tests."""
    return f"{prefix}probes/{name}"


def catalog_key(prefix: str, day: date) -> str:
    """Return the key of a day's part of the catalog."""
    return f"{prefix}catalog/date={day.isoformat()}/recordings.parquet"


def calls_prefix(prefix: str) -> str:
    """Return the prefix of all keys of the table of calls, which needs its own permissions: it holds personal data."""
    return f"{prefix}calls/"


def calls_key(prefix: str, day: date) -> str:
    """Return the key of a day's part of the table of calls."""
    return f"{calls_prefix(prefix)}date={day.isoformat()}/calls.parquet"


def calls_index_key(prefix: str, month: str) -> str:
    """Return the key of the index of a month's calls; `month` looks like 2026-11."""
    return f"{calls_prefix(prefix)}_index/month={month}/keys.parquet"


def metadata_text(value: str) -> str:
    """Return a string as safe object metadata: percent-encoded ASCII of at most 512 characters, or `sha256:<hex>`.

    Equal strings give equal texts, and different strings different texts, so ids can be compared in this form.
    """
    text = quote(value, safe="/", errors="surrogatepass")  # which leaves no ":", so the two forms never meet
    return text if len(text) <= _METADATA_LIMIT else f"sha256:{_sha256(value)}"


def _harmless(text: str, allowed: re.Pattern[str], identity: str) -> str:
    # A name that looks like one of our hashes is hashed as well: a hostile source could else choose another's name.
    if allowed.fullmatch(text) and not text.lower().startswith(_HASHED):
        return text
    return f"{_HASHED}{_sha256(identity)[:32]}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

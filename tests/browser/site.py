"""A bucket with calls, and a page over it."""

from __future__ import annotations

import hashlib
import json
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageUnavailable
from pipelines.archive.keys import access_prefix, calls_key, recording_key
from pipelines.archive.proof.attestation import MANIFESTS, ObservedObject, write_attestation
from pipelines.archive.proof.manifest import ManifestEntry
from pipelines.archive.proof.seal import CATALOG_SCHEMA, catalog_table, seal
from pipelines.archive.proof.signature import Verifier, sign_manifest
from pipelines.browser.app import Browser
from pipelines.settings import BrowseSettings
from pipelines.steps.calls.table import CALLS_FILE_SCHEMA, encode
from tests.archive.conftest import build_wav

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it prefers a successor of httpx, and works with httpx
    from starlette.testclient import TestClient

DAY = date(2026, 11, 22)
NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
ACCOUNT = "15300002"
SALES, SUPPORT = "1001", "2002"  # agents
ORIGIN = "http://127.0.0.1:8090"
HOSTILE_NAME = "<script>alert(1)</script>"
HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse"
RULES = """
[teams.sales]
agents = ["1001"]
"""
PEOPLE = {
    "officer": ("compliance",),
    "auditor": ("metadata",),
    "seller": ("listen_own_team",),
    "quality": ("listen_all", "numbers", "export"),
    "nobody": (),
}


def tone(seconds: float, *pitches: float, rate: int = 8000) -> bytes:
    """A 16-bit WAV with a tone for each channel; a pitch of 0 is silence."""
    time = np.arange(int(seconds * rate)) / rate
    channels = [12000 * np.sin(2 * np.pi * pitch * time) for pitch in pitches]
    audio = np.stack(channels, axis=1).astype("<i2").tobytes()
    return build_wav(channels=len(pitches), rate=rate, audio=audio)


@dataclass
class Site:
    """`settings` are variables of the page, without their prefix; `moment`: what the page's clock says; `key`: what
    manifests are signed with.
    """

    bucket: Bucket
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    moment: datetime = NOW
    rows: list[dict[str, Any]] = field(default_factory=list)
    key: Ed25519PrivateKey | None = None

    @property
    def verifier(self) -> Verifier | None:
        """What proves the signatures."""
        return None if self.key is None else Verifier([self.key.public_key()])

    def add(self, body: bytes | None, *, uii: str = "2026112219154001516000000001", **fields: Any) -> dict[str, Any]:
        """Add a call with a recording, stored as it would be; `body` None: one that is not held."""
        number = len(self.rows)
        row = dict.fromkeys(CALLS_FILE_SCHEMA.names) | {
            "started_at": datetime(2026, 11, 22, 14, 15, tzinfo=UTC) + timedelta(seconds=number),
            "started_local": f"2026-11-22T09:15:{number:02}-05:00",
            "account_id": ACCOUNT,
            "uii": uii,
            "direction": "inbound",
            "ani": "+1 (602) 555-0142",
            "ani_e164": "+16025550142",
            "dnis": "5105550111",
            "dnis_e164": "+15105550111",
            "agent_id": SALES,
            "agent_name": "Ava O'Neill",
            "queue_id": "41001",
            "queue_name": "Billing",
            "disposition": "Resolved",
            "notes": "asked for +1 (602) 555-0142",
            "call_s": 12.0,
            "segment_s": 8.0,
            "layout": "stereo",
            "agent_channel": 1,
            "recording_id": f"{ACCOUNT}/202611/22/{number}-1.WAV",
            "state": "archived" if body is not None else "missing",
            "reason": None if body is not None else "not_found",
            "verdict": "complete",
            "warnings": [],
        }
        row |= fields
        if body is not None:
            key = recording_key(self.bucket.prefix, DAY, row["account_id"], row["layout"], row["recording_id"])
            digest = hashlib.sha256(body).hexdigest()
            self.bucket.put_new(key, body, content_type="audio/wav", sha256=digest)
            row = row | {"key": key, "size": len(body), "sha256": digest} | fields
        self.rows.append(row)
        return row

    def seal(self) -> None:
        """Seal the date, and store its calls."""
        recorded = sorted((row for row in self.rows if row["recording_id"]), key=lambda row: row["recording_id"])
        entries = [
            ManifestEntry(
                recording_id=row["recording_id"],
                account_id=row["account_id"],
                uii=row["uii"],
                layout=row["layout"],
                source="agent_segment_metadata",
                status=row["state"],
                reason=row["reason"],
                started_at=row["started_at"],
                duration_s=row["segment_s"],
                key=row["key"],
                size=row["size"],
                sha256=row["sha256"],
            )
            for row in recorded
        ]
        columns = pa.schema([CATALOG_SCHEMA.field(name) for name in ManifestEntry._fields])
        recordings = pa.Table.from_pylist([entry._asdict() for entry in entries], columns)
        catalog = catalog_table(recordings, verdict="complete")
        sealed = seal(self.bucket, DAY, lambda: entries, {"found": len(entries)}, catalog, run_id="run", sealed_at=NOW)
        size = len(self.bucket.get_bytes(sealed.key))
        seen = ObservedObject(sealed.key.removeprefix(self.bucket.prefix), size, sealed.sha256)
        write_attestation(self.bucket, MANIFESTS, DAY, [seen], now=NOW)
        if self.key is not None:
            sign_manifest(self.bucket, self.key, sealed)
        for row in self.rows:
            row |= {"manifest_number": sealed.number, "manifest_sha256": sealed.sha256}
        self.store_calls()

    def store_calls(self) -> None:
        """Store the table of the calls as `rows` has them."""
        table = pa.Table.from_pylist(self.rows, CALLS_FILE_SCHEMA)
        key = calls_key(self.bucket.prefix, DAY)
        self.bucket.put(key, encode(table), content_type="application/vnd.apache.parquet")

    def overwrite(self, key: str, body: bytes) -> None:
        """Put other bytes in the place of an object."""
        self.bucket.put(key, body, content_type="audio/wav")

    def remove(self, key: str) -> None:
        """Remove an object, which the archive itself never does."""
        self.bucket._client.delete_object(Bucket=self.bucket.name, Key=key)

    def rules(self, text: str = "") -> Path:
        """Write the access file, with every person's password."""
        people = "".join(
            f"[users.{name}]\nroles = {json.dumps(roles)}\npassword = {json.dumps(HASHER.hash(PASSWORD))}\n"
            + ('teams = ["sales"]\n' if name == "seller" else "")
            for name, roles in PEOPLE.items()
        )
        path = self.folder / "access.toml"
        path.write_text(people + RULES + text)
        return path

    def browser(self) -> Browser:
        """Return the page."""
        given: dict[str, Any] = {
            "archive_bucket": self.bucket.name,
            "archive_prefix": self.bucket.prefix,
            "archive_timezone": "US/Eastern",
            "browse_auth": "password",
            "browse_url": ORIGIN,
            "browse_access_file": self.folder / "access.toml",
            "browse_rate": 10_000,
            "browse_secret": "s" * 32,
        }
        settings = BrowseSettings(**given | {f"browse_{name}": value for name, value in self.settings.items()})
        if settings.browse_auth != "open" and not (self.folder / "access.toml").exists():
            self.rules()
        return Browser(self.bucket, settings, verifier=self.verifier, clock=lambda: self.moment)

    def client(self, name: str | None = None, **options: Any) -> TestClient:
        """Return a browser's requests, signed in as `name`."""
        client = TestClient(self.browser().app(), base_url=ORIGIN, headers={"Origin": ORIGIN}, **options)
        if name:
            answer = client.post("/sign-in", data={"name": name, "password": PASSWORD}, follow_redirects=False)
            assert answer.status_code == 303, answer.text
        return client

    def log(self, *actions: str) -> list[dict[str, Any]]:
        """Return the access log as it is stored, in the order of time."""
        keys = [key for key, _ in self.bucket.list_keys(access_prefix(self.bucket.prefix, self.moment.date()))]
        found = [json.loads(self.bucket.get_bytes(key)) for key in sorted(keys)]
        return [entry for entry in found if not actions or entry["action"] in actions]


def break_at(row: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bucket fail when the recording of this row is read through."""
    hashed = Bucket.hash_object

    def fails(bucket: Bucket, key: str, into: Any = None) -> Any:
        if key == row["key"]:
            raise StorageUnavailable("S3 does not answer")
        return hashed(bucket, key, into)

    monkeypatch.setattr(Bucket, "hash_object", fails)


def path_of(row: Mapping[str, Any]) -> str:
    """The address of a call's page."""
    return f"/calls/{DAY}/{row['account_id']}/{row['uii']}"


def fields_of(row: Mapping[str, Any]) -> dict[str, str]:
    """What the page's forms say of a recording."""
    return {
        "day": str(DAY),
        "account": row["account_id"],
        "uii": row["uii"],
        "recording": row["recording_id"],
    }


def samples(body: bytes) -> np.ndarray[Any, Any]:
    """The samples of a plain 16-bit WAV, with its header checked."""
    assert body[:4] == b"RIFF"
    assert body[36:40] == b"data"
    assert struct.unpack("<I", body[40:44])[0] == len(body) - 44
    return np.frombuffer(body[44:], "<i2")

"""The certificate of a date: what is archived, how far it is proved, and how anybody can check it without us.

`format`: `ringcx-archive/certificate/1`; `date`; `verdict` and `sentence`; `counts`; `manifest` (`key`, `number`,
`sha256`, `sealed_at`, `totals`, `previous_sha256`, `previous_day`, `signature`: `key` and `state`), null where none can
be relied on; `recordings`: id, state, reason, start, key, size and SHA-256 of each, as sealed; `accepted_losses`: who
accepted which of them, when and why, as sealed; `discrepancies`; `commands`. The verdict is that of `verify`: a date
that is not as it was sealed is never complete. The bytes of the recordings are not read. Not here: how it is shown.
"""

from __future__ import annotations

import json
import shlex
from base64 import b64decode
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing
from pipelines.archive.keys import signature_key
from pipelines.archive.proof.manifest import Entry, ManifestHead, read_manifest
from pipelines.archive.proof.signature import statement
from pipelines.ledger.states import Status
from pipelines.steps.verify.days import Archive, verify_days
from pipelines.steps.verify.objects import Reading
from pipelines.steps.verify.report import Discrepancy

FORMAT = "ringcx-archive/certificate/1"
_OF_RECORDING = ("recording_id", "reason", "started_at", "key", "size", "sha256")
_COUNTS = ("found", "held", "pending", "lost", "bytes")


def certify(archive: Archive, first: date, last: date) -> Iterator[dict[str, Any]]:
    """Yield the certificate of each date from `first` to `last`, both included.

    Raises:
        StorageError: settings or rights are wrong, or a manifest vanished meanwhile.
    """
    found: list[Discrepancy] = []
    for result in verify_days(archive, first, last, Reading(), add=found.append):
        of_date = [one for one in found if one.date == result.date and not one.arriving]
        recordings: list[dict[str, Any]] = []
        head = None
        if result.manifest is not None:
            day = date.fromisoformat(result.date)

            def add(entry: Entry, into: list[dict[str, Any]] = recordings) -> None:
                into.append({"state": entry["status"], **{name: entry.get(name) for name in _OF_RECORDING}})

            head = read_manifest(archive.bucket, day, result.manifest, add)
        signature = None if head is None else _signature(archive, head, of_date)
        yield {
            "format": FORMAT,
            "date": result.date,
            "verdict": result.verdict,
            "sentence": result.reason or f"It is unknown what {result.date} holds.",
            "counts": {name: getattr(result, name) for name in _COUNTS} if head is not None else None,
            "manifest": None if head is None or signature is None else _manifest(head, signature),
            "recordings": recordings,
            "accepted_losses": [] if head is None else head.document.get("accepted_losses", []),
            "discrepancies": [{"kind": one.kind, "subject": one.subject, "sentence": one.sentence} for one in of_date],
            "commands": [] if head is None else list(_commands(archive.bucket, head, recordings)),
        }


def _manifest(head: ManifestHead, signature: Mapping[str, str]) -> dict[str, Any]:
    names = ("sealed_at", "totals", "previous_sha256", "previous_day")
    sealed = {name: head.document.get(name) for name in names}
    return {"key": head.key, "number": head.number, "sha256": head.sha256, **sealed, "signature": signature}


def _signature(archive: Archive, head: ManifestHead, discrepancies: list[Discrepancy]) -> dict[str, str]:
    """Return the key of the signature and its state: `none`, `not_checked`, `missing`, `wrong` or `valid`."""
    key = signature_key(head.key)
    kinds = {one.kind.removeprefix("signature_") for one in discrepancies if one.subject == key}
    if kinds:
        state = min(kinds)
    elif archive.bucket.head(key) is None:
        state = "none"
    else:
        state = "not_checked" if archive.verifier is None else "valid"
    return {"key": key, "state": state}


def _commands(bucket: Bucket, head: ManifestHead, recordings: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the shell commands that check the manifest, its signature and a recording without this program."""

    def copy(key: str, to: str) -> str:
        return f"aws s3 cp {shlex.quote(f's3://{bucket.name}/{key}')} {to}"

    yield copy(head.key, "manifest.json")
    yield f"echo '{head.sha256}  manifest.json' | sha256sum --check"
    if signature := _stored_signature(bucket, signature_key(head.key)):
        lines = statement(bucket.prefix, head.key, head.sha256).decode().splitlines()
        yield f"printf '%s\\n' {' '.join(map(shlex.quote, lines))} > statement"
        yield f"echo '{signature}' | openssl base64 -d -A > signature"
        yield "openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in statement -sigfile signature"
    held = next((one for one in recordings if one["state"] == Status.archived and one["key"] and one["sha256"]), None)
    if held is not None:
        yield copy(held["key"], "recording")
        yield f"echo {shlex.quote(held['sha256'] + '  recording')} | sha256sum --check"


def _stored_signature(bucket: Bucket, key: str) -> str | None:
    """Return the signature in base64; None where there is none, or something else is stored there."""
    try:
        signature = str(json.loads(bucket.get_bytes(key))["signature"])
        b64decode(signature, validate=True)
    except (KeyMissing, ValueError, KeyError, TypeError, RecursionError):
        return None
    return signature

"""The certificate of a date: what is archived, how far it is proved, and how anybody can check it without this program.

`format`: `ringcx-archive/certificate/1`; `date`; `verdict` and `sentence`; `counts`; `manifest` (`key`, `number`,
`sha256`, `merkle_root`, null in those of earlier versions, `sealed_at`, `totals`, `previous_sha256`, `previous_day`,
`signature`: `key` and `state`), null where none can be relied on; `recordings`: id, state, reason, start, key, size and
SHA-256 of each, as sealed; `accepted_losses`: who accepted which of them, when and why, as sealed;
`accepted_elsewhere`: recordings that the date expects and whose accepted loss another date's manifest lists, with that
date; `discrepancies`; `commands`. The verdict is that of `verify`: a date that is not as it was sealed is never
complete. The bytes of the recordings are not read. `cli/certificate.py` renders the certificate.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageUnavailable, StoreDamaged
from pipelines.archive.keys import signature_key
from pipelines.archive.proof.manifest import ManifestEntry, ManifestHead
from pipelines.archive.proof.signature import read_signature, signed_statement
from pipelines.ledger.states import Status
from pipelines.steps.check.verdict import Verdict
from pipelines.steps.verify.days import Archive, verify_days
from pipelines.steps.verify.objects import Sampling
from pipelines.steps.verify.report import Discrepancy

FORMAT = "ringcx-archive/certificate/1"
_OF_RECORDING = ("recording_id", "reason", "started_at", "key", "size", "sha256")
_OF_DISCREPANCY = ("kind", "subject", "sentence")
_COUNTS = ("found", "held", "pending", "lost", "accepted_losses", "bytes")


def certify(archive: Archive, first: date, last: date) -> Iterator[dict[str, Any]]:
    """Yield the certificate of each date from `first` to `last`, both included; raise the errors of `verify_days`."""
    found: list[Discrepancy] = []
    sealed: dict[str, tuple[ManifestHead, list[dict[str, Any]]]] = {}

    def keep(day: date, head: ManifestHead, entries: Iterable[ManifestEntry]) -> None:
        sealed[day.isoformat()] = head, [{"state": entry.status, **_values(entry, _OF_RECORDING)} for entry in entries]

    for result in verify_days(archive, first, last, Sampling(), add=found.append, sealed=keep):
        of_date = [each for each in found if each.date == result.date and not each.arriving]
        certificate: dict[str, Any] = {
            "format": FORMAT,
            "date": result.date,
            "verdict": result.verdict,
            "sentence": result.reason or f"It is unknown what {result.date} holds.",
            "counts": None,
            "manifest": None,
            "recordings": [],
            "accepted_losses": [],
            "accepted_elsewhere": result.accepted_elsewhere,
            "discrepancies": [],
            "commands": [],
        }
        if result.date in sealed:
            head, recordings = sealed.pop(result.date)
            signature: Mapping[str, Any] = {}
            try:
                signature = read_signature(archive.bucket, head.key)
            except (StorageUnavailable, StoreDamaged) as error:
                of_date.append(Discrepancy(result.date, "signature_unreadable", signature_key(head.key), str(error)))
                certificate["verdict"] = Verdict.gaps
                certificate["sentence"] = f"{str(error).rstrip('.')}. {certificate['sentence']}"
            certificate |= {
                "counts": _values(result, _COUNTS),
                "manifest": _manifest(head, _signature(archive, head, signature, of_date)),
                "recordings": recordings,
                "accepted_losses": head.document.get("accepted_losses", []),
                "commands": list(_commands(archive.bucket, head, signature, recordings)),
            }
        certificate["discrepancies"] = [_values(each, _OF_DISCREPANCY) for each in of_date]
        yield certificate


def _values(source: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


def _manifest(head: ManifestHead, signature: Mapping[str, str]) -> dict[str, Any]:
    names = ("merkle_root", "sealed_at", "totals", "previous_sha256", "previous_day")
    sealed = {name: head.document.get(name) for name in names}
    return {"key": head.key, "number": head.number, "sha256": head.sha256, **sealed, "signature": signature}


def _signature(
    archive: Archive, head: ManifestHead, stored: Mapping[str, Any], discrepancies: list[Discrepancy]
) -> dict[str, str]:
    """Return the signature's key and state: `none`, `not_checked`, `missing`, `unreadable`, `wrong` or `valid`."""
    key = signature_key(head.key)
    problems = {found.kind.removeprefix("signature_") for found in discrepancies if found.subject == key}
    if problems:
        state = min(problems)
    elif not stored:
        state = "none"
    else:
        state = "not_checked" if archive.verifier is None else "valid"
    return {"key": key, "state": state}


def _commands(
    bucket: Bucket, head: ManifestHead, stored: Mapping[str, Any], recordings: list[dict[str, Any]]
) -> Iterator[str]:
    """Yield the shell commands that check the manifest, its signature and a recording without this program."""

    def copy(key: str, to: str) -> str:
        return f"aws s3 cp {shlex.quote(f's3://{bucket.name}/{key}')} {to}"

    yield copy(head.key, "manifest.json")
    yield f"echo '{head.sha256}  manifest.json' | sha256sum --check"
    if stored:
        lines = signed_statement(bucket.prefix, head, stored).decode().splitlines()
        yield f"printf '%s\\n' {' '.join(map(shlex.quote, lines))} > statement"
        yield f"echo '{stored['signature']}' | openssl base64 -d -A > signature"
        yield "openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in statement -sigfile signature"
    held = next((row for row in recordings if row["state"] == Status.archived and row["key"] and row["sha256"]), None)
    if held is not None:
        yield copy(held["key"], "recording")
        yield f"echo {shlex.quote(held['sha256'] + '  recording')} | sha256sum --check"

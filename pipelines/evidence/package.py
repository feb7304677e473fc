"""An evidence package: recordings with a proof for each, as a ZIP that is made while it is sent.

`package.json` lists all of it and is written last; nothing is compressed. A recording is included only if it is as it
was sealed; any other is listed with its state and the reason. Other modules decide who may export what, write the
access log, and send the ZIP.
"""

import hashlib
import io
import json
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.resources import files
from itertools import groupby
from string import Template
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Final, cast
from zipfile import ZipFile, ZipInfo

import pyarrow as pa

from pipelines import __version__
from pipelines.archive.bucket import Bucket
from pipelines.archive.proof.manifest import ManifestHead
from pipelines.archive.proof.signature import Verifier, read_signature, signed_statement
from pipelines.evidence import verify
from pipelines.evidence.integrity import SealedDate
from pipelines.ledger.states import Status
from pipelines.steps.calls.csv_file import write_csv
from pipelines.steps.calls.table import CALLS_SCHEMA, Row
from pipelines.wording import number

_COLUMNS: Final = (
    "date", "started_local", "started_at", "account_id", "uii", "session", "direction", "ani", "dnis", "agent_id",
    "agent_name", "queue_id", "queue_name", "disposition", "notes", "call_s", "segment_s", "hold_s", "wrap_s", "layout",
    "agent_channel", "recording_id", "state", "reason",
)  # fmt: skip
_BLOCK: Final = 1 << 20
_IN_MEMORY: Final = 8 << 20
_SIGNED: Final = """\
At least one seal in this package is signed. If another is not, or an earlier version signed it, verify.py says so,
and says what to do instead."""
_UNSIGNED: Final = """\
NO SIGNATURE IN THIS PACKAGE VOUCHES FOR ITS RECORDINGS. So the package alone proves none of this: it shows only
that its parts agree with each other, and anybody can make such a package. Ask the archive's owner for the
certificate of each date, and compare "merkle_root" in each proof with the Merkle root in the certificate. The
proof is then as good as the way in which you got the certificate."""
_COMPARE_ROOTS: Final = """\
Did the archive seal the recording? No signature in this package says so. "merkle_root" in the proof must be the
Merkle root in the certificate of that date: ask the archive's owner for the certificate."""
_LACKS_KEY: Final = """

The public key is not in this package: ask the archive's owner for it, and save it next to this
folder, not in it, as archive.pem. Give it to verify.py, too: --key ../archive.pem"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What was requested, by whom, when (aware) and why, and which of its dates could not be searched."""

    by: str
    at: datetime
    why: str
    asked_for: Mapping[str, str]
    not_searched: Sequence[date] = ()


class EvidencePackage:
    """A package of rows of the table `calls`; without a `verifier`, their manifests need no signature.

    `ids`: recordings that were requested by id, which must be listed even if no row has them. A recording for which
    `may_include` returns False is listed as withheld. `shown` returns a row as calls.csv may show it. `included` and
    `not_included` are the recordings as package.json lists them, complete when `blocks` has ended.
    """

    def __init__(
        self,
        bucket: Bucket,
        verifier: Verifier | None,
        rows: Sequence[Row],
        request: ExportRequest,
        *,
        ids: Sequence[str] = (),
        may_include: Callable[[Row], bool] = lambda _: True,
        shown: Callable[[Row], Row] = lambda row: row,
    ) -> None:
        self._bucket, self._verifier, self._request = bucket, verifier, request
        self._rows = sorted(rows, key=in_time)
        self._may_include, self._shown = may_include, shown
        self._sink = _Sink()
        self._zip: ZipFile
        self._files: list[dict[str, Any]] = []
        self._signatures: dict[str, Mapping[str, Any] | None] = {}
        self._signed: tuple[str, Mapping[str, Any]] | None = None
        self._names: list[str | None] = [None] * len(rows)
        self.included: list[dict[str, Any]] = []
        unknown = sorted(set(ids) - {row["recording_id"] for row in rows})
        self.not_included: list[dict[str, Any]] = [
            {"recording_id": each, "state": "unknown", "reason": "No call has this recording."} for each in unknown
        ]

    def blocks(self) -> Generator[bytes, None, None]:
        """Yield the ZIP, with one recording at a time in memory or on disk; what an error cuts off is not a package."""
        with ZipFile(self._sink, "w") as self._zip:  # closes the open entry even if the client disconnects
            yield from self._contents()
        yield self._sink.take()

    def _contents(self) -> Iterator[bytes]:
        yield from self._add("verify.py", files("pipelines.evidence").joinpath("verify.py").read_bytes())
        for day, numbered in groupby(enumerate(self._rows), lambda each: each[1]["date"]):
            of_day = list(numbered)
            ids = {row["recording_id"] for _, row in of_day if row["state"] == Status.archived}
            sealed = SealedDate(self._bucket, self._verifier, day, ids, tree=True) if ids else None
            for index, row in of_day:
                yield from self._recording(sealed, index, row)
        for key_id in sorted({signature["key_id"] for signature in self._signatures.values() if signature}):
            if self._verifier is not None and (pem := self._verifier.pem(key_id)) is not None:
                yield from self._add(f"keys/{key_id}.pem", pem)
        with self._spool() as spool:
            text = io.TextIOWrapper(spool, "utf-8", "backslashreplace", newline="")
            write_csv(self._calls(), text)
            text.detach()
            yield from self._add("calls.csv", spool)
        sums = (f"{file['sha256']}  {file['name']}\n" for file in self._files if file["name"].startswith("recordings/"))
        yield from self._add("SHA256SUMS", "".join(sums).encode())
        yield from self._add("HOW-TO-VERIFY.txt", self._how_to().encode("utf-8", "backslashreplace"))
        yield from self._add(verify.LAST, _json(self.listing()))

    def _recording(self, sealed: SealedDate | None, index: int, row: Row) -> Iterator[bytes]:
        """Yield a row's recording and its proof, or note why they are not included."""
        if row["state"] != Status.archived or sealed is None:
            self._leave_out(row, row["state"], row["reason"])
            return
        if not self._may_include(row):
            self._leave_out(row, "withheld", "The person who exported this may not play it.")
            return
        with self._spool() as spool:
            checked = sealed.check(row, spool)
            manifest = sealed.manifest
            if not checked.as_sealed or manifest is None:
                self._leave_out(row, "altered" if checked.sha256 else "not proved", checked.sentence)
                return
            if "merkle_root" not in manifest.document:
                said = f"Manifest {manifest.number} of {row['date']} has no Merkle root: run that date again."
                self._leave_out(row, "not proved", said)
                return
            name = verify.file_name(index + 1, row["date"], row["key"])
            recording, proof = f"recordings/{name}", f"proofs/{name}.json"
            yield from self._add(recording, spool)
        self._names[index] = recording
        signature = self._signature(manifest)
        yield from self._add(proof, _json(self._proof(sealed, manifest, row, recording)))
        if self._signed is None and signature is not None and signature["format"] == verify.SIGNED:
            self._signed = proof, signature
        self.included.append(_identity(row) | {"file": recording, "proof": proof})

    def _proof(self, sealed: SealedDate, manifest: ManifestHead, row: Row, recording: str) -> dict[str, Any]:
        """Return how hashes lead from a recording's entry to the root of its manifest, and who signed that."""
        index, entry = sealed.entries[row["recording_id"]]
        return {
            "format": verify.PROOF,
            "recording": recording,
            "entry": entry,
            "leaf_index": index,
            "tree_size": sealed.tree.size,
            "path": sealed.tree.path(index),
            "merkle_root": sealed.tree.root,
            "manifest": {
                "key": manifest.key.removeprefix(self._bucket.prefix),
                "number": manifest.number,
                "sha256": manifest.sha256,
            },
            "signature": self._signature(manifest),
        }

    def _signature(self, manifest: ManifestHead) -> Mapping[str, Any] | None:
        """Return the signature of a manifest; None if there is none, or another object is stored in its place."""
        if manifest.key not in self._signatures:
            found = read_signature(self._bucket, manifest.key)
            statement = signed_statement(self._bucket.prefix, manifest, found).decode()
            is_signature = found.get("statement") == statement and isinstance(found.get("key_id"), str)
            self._signatures[manifest.key] = found if is_signature else None
        return self._signatures[manifest.key]

    def _leave_out(self, row: Row, state: str, reason: str | None) -> None:
        self.not_included.append(_identity(row) | {"state": state, "reason": reason})

    def _add(self, name: str, content: bytes | BinaryIO) -> Iterator[bytes]:
        stream = io.BytesIO(content) if isinstance(content, bytes) else content
        info = ZipInfo(name, self._request.at.astimezone(UTC).timetuple()[:6])
        info.file_size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        digest = hashlib.sha256()
        with self._zip.open(info, "w") as into:
            while block := stream.read(_BLOCK):
                digest.update(block)
                into.write(block)
                yield self._sink.take()
        self._files.append({"name": name, "size": info.file_size, "sha256": digest.hexdigest()})

    @staticmethod
    def _spool() -> BinaryIO:
        return cast("BinaryIO", SpooledTemporaryFile(_IN_MEMORY))

    def _calls(self) -> pa.Table:
        table = pa.Table.from_pylist([dict(self._shown(row)) for row in self._rows], CALLS_SCHEMA)
        return table.select(list(_COLUMNS)).add_column(0, "file", pa.array(self._names, pa.string()))

    def listing(self) -> dict[str, Any]:
        """Return the document package.json, once `blocks` has ended."""
        return {
            "format": verify.PACKAGE,
            "exported_by": self._request.by,
            "exported_at": self._request.at.astimezone(UTC).isoformat(timespec="seconds"),
            "why": self._request.why,
            "asked_for": self._request.asked_for,
            "not_searched": [str(day) for day in self._request.not_searched],
            "tool": f"RingCX Archive {__version__}",
            "recordings": self.included,
            "not_included": self.not_included,
            "files": self._files,
        }

    def _how_to(self) -> str:
        lost = number(len(self.not_included), "recording or call", "recordings or calls")
        lacks = f"Requested, but not in this package: {lost}. package.json says which, and why."
        template = Template(files("pipelines.evidence").joinpath("how_to_verify.txt").read_text("utf-8"))
        return template.substitute(
            exported_at=f"{self._request.at.astimezone(UTC):%Y-%m-%d at %H:%M UTC}",
            exported_by=self._request.by,
            why=self._request.why,
            recordings=number(len(self.included), "recording"),
            not_included=lacks if self.not_included else "Everything that was requested is in the package.",
            is_signed=_SIGNED if self._signed else _UNSIGNED,
            by_hand=self._by_hand(*self._signed) if self._signed else _COMPARE_ROOTS,
        )

    def _by_hand(self, proof: str, signature: Mapping[str, Any]) -> str:
        """Return instructions for verifying one signature without Python."""
        lines = " ".join(map(shlex.quote, signature["statement"].splitlines()))
        key, lacks = f"keys/{signature['key_id']}.pem", ""
        if not any(file["name"] == key for file in self._files):
            key, lacks = "../archive.pem", _LACKS_KEY
        return f"""Is the seal signed with the archive's key? The commands below verify it for
{proof}; verify "statement" and "signature" of every other proof in the same way.{lacks}

    printf '%s\\n' {lines} > /tmp/statement
    echo '{signature["signature"]}' | openssl base64 -d -A > /tmp/signature
    openssl pkeyutl -verify -pubin -inkey {key} -rawin -in /tmp/statement -sigfile /tmp/signature

This needs OpenSSL 3.0 or later, and must print "Signature Verified Successfully". The last line of the statement
must be "merkle_root" in the proof. The fingerprint of the public key:

    openssl pkey -pubin -in {key} -outform DER | sha256sum"""


def in_time(row: Row) -> tuple[str, str, str]:
    """Return the sort key of a row of calls: date, start and recording id."""
    return str(row["date"]), str(row["started_at"] or ""), row["recording_id"] or ""


def _identity(row: Row) -> dict[str, str]:
    return {name: str(row[name] or "") for name in ("recording_id", "account_id", "uii", "date")}


def _json(document: Mapping[str, Any]) -> bytes:
    # Half of a surrogate pair, as a hostile source may send it, stays readable as JSON writes it.
    return f"{json.dumps(document, indent=1)}\n".encode()


class _Sink(io.RawIOBase):
    """An output for ZipFile that cannot seek. The caller removes its content block by block."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: Any) -> int:  # noqa: ANN401 - bytes
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken

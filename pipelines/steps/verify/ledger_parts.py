"""The verification of a date's ledger: each of its parts against the attestations."""

import hashlib
import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.ledger.files import LedgerDamaged
from pipelines.ledger.parts import LedgerParts, damage, decode_part
from pipelines.ledger.schema import SCHEMAS, decode, states_from, values
from pipelines.ledger.store import current_lines
from pipelines.steps.parallel import map_readable
from pipelines.steps.verify.arriving import Arriving
from pipelines.steps.verify.manifests import attestations, compare_attested
from pipelines.steps.verify.report import Flag
from pipelines.wording import capitalized

_BATCH = 2000


def read_ledger(parts: LedgerParts, arriving: Arriving, threads: int, flag: Flag) -> pa.Table:
    """Read every part of the date and compare it with its attestations. Return the current states (STATE_SCHEMA).

    A missing part is accounted for if an attested merged part replaces it. Until a date is sealed, no part is attested.
    """
    day = arriving.day
    states: list[pa.Table] = []
    unattested: list[str] = []
    # Attestations before parts: what comes between the two is not attested yet, and not gone.
    attested = {kind: attestations(arriving.bucket, kind, day, flag) for kind in SCHEMAS}
    for kind, names in parts.names(day).items():
        there: dict[str, str] = {}
        replaced: dict[str, str] = {}
        for name, data in map_readable(parts.read, names, threads=threads):
            if isinstance(data, LedgerDamaged):  # removed since it was listed
                continue
            there[name] = hashlib.sha256(data).hexdigest()
            seen = {thing.sha256 for thing in attested[kind].get(name, ())}
            try:
                with damage(name):
                    if not seen:
                        unattested.append(name)
                        arriving.runs[name] = _runs(data)
                    elif seen == {there[name]}:
                        replaced |= _replaced(data)
                if kind in {"accepted_losses", "recording_states"}:
                    lines = decode_part(name, data)
                    if kind == "recording_states":
                        for start in range(0, lines.num_rows, _BATCH):
                            states_from(lines.slice(start, _BATCH))  # raises ValueError if a line is no valid state
                        states.append(lines)
            except LedgerDamaged as error:
                flag("ledger_part_altered", name, capitalized(error))
        compare_attested(attested[kind], replaced | there, "ledger_part", day, flag)
    for name in unattested if arriving.chain.numbers else ():
        what = f"The ledger part {name} was added to {day} after it was last sealed"
        sentence = f"{what}, or its attestation was removed; run the date again"
        flag("unattested", name, sentence, arriving=name in arriving.parts)
    return current_lines(states)


def _runs(data: bytes) -> set[str]:
    """Return the runs that wrote a part."""
    runs = decode(data, ["run_id"])
    return set(values(pc.unique(runs["run_id"]))) if runs.num_columns else set()


def _replaced(data: bytes) -> dict[str, str]:
    """Return the parts that a part merged by version 0.1.0 replaces, with their SHA-256; none for any other part."""
    metadata = pq.read_metadata(pa.BufferReader(data)).metadata or {}
    record = json.loads(metadata.get(b"ringcx-archive/merged/1", b"{}"))
    try:
        return {part["name"]: part["sha256"] for parts in ("parts", "between") for part in record.get(parts, ())}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("its list of the parts it replaces is damaged") from error

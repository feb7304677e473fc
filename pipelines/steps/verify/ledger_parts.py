"""The verification of a date's ledger: its pulls, and each of its parts against the attestations."""

import hashlib
import json
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.archive.proof.attestation import ObservedObject
from pipelines.calendar import day_bounds
from pipelines.ledger.files import LedgerDamaged
from pipelines.ledger.parts import LedgerParts, damage, decode_part
from pipelines.ledger.schema import STATE_SCHEMA, decode, states_from, values
from pipelines.ledger.store import current_lines
from pipelines.settings import VerifySettings
from pipelines.steps.parallel import map_in_order
from pipelines.steps.pull.coverage import SETTLED, Pulls, unpulled
from pipelines.steps.verify.arriving import Arriving
from pipelines.steps.verify.manifests import attestations
from pipelines.steps.verify.report import Flag
from pipelines.wording import capitalized, number

_BATCH = 2000


def check_pulls(arriving: Arriving, pulls: Pulls, settings: VerifySettings, flag: Flag) -> None:
    """Verify that a full source was pulled for the whole day for each account in the settings, or else in the pulls."""
    day = arriving.day
    if not any(pulls.values()):
        sentence = f"{day} was never pulled, so what it should hold is unknown; run it"
        flag("never_pulled", day.isoformat(), sentence, arriving=arriving.under_way)
        return
    when = "" if arriving.now >= day_bounds(day, settings.zone)[1] + SETTLED else " when it is over"
    for gap in unpulled(pulls, day, settings):
        kind, again = ("partly_pulled", " again") if gap.to else ("never_pulled", "")
        sentence = f"{gap}; run {day}{again}{when}"
        flag(kind, f"{gap.report} of account {gap.account_id}", sentence, arriving=arriving.under_way)


def read_ledger(parts: LedgerParts, arriving: Arriving, threads: int, flag: Flag) -> pa.Table:
    """Read every part of the date and compare it with its attestations. Return the current states (STATE_SCHEMA).

    A missing part is accounted for if an attested merged part replaces it. Until a date is sealed, no part is attested.
    """
    states = _CurrentStates()
    unattested: dict[str, list[str]] = {}
    for kind, names in parts.names(arriving.day).items():
        attested = attestations(arriving.bucket, kind, arriving.day, flag)
        present: list[str] = []
        replaced: dict[str, str] = {}
        for name, data in map_in_order(parts.read_if_there, names, threads=threads):
            if data is None:  # removed since it was listed
                continue
            present.append(name)
            try:
                replaced |= _check_part(name, data, attested.get(name), arriving, flag)
                if kind == "recording_states":
                    states.add(_states(name, data))
                elif kind == "accepted_losses":
                    decode_part(name, data)
            except LedgerDamaged as error:
                flag("ledger_part_altered", name, capitalized(error))
        gone = attested.keys() - set(present)
        if gone:
            # Attestations were read after the listing: a part that came between the two is listed now.
            gone -= set(parts.names(arriving.day)[kind])
        for name in sorted(gone):
            if {replaced.get(name)} != {seen.sha256 for seen in attested[name]}:
                flag(
                    "ledger_part_removed",
                    name,
                    f"The ledger part {name} was there when {arriving.day} was sealed and is gone; restore it from a "
                    "backup or an earlier version of the object",
                )
        unattested[kind] = [name for name in present if name not in attested]
    if arriving.chain.numbers:
        _flag_unattested(unattested, arriving, flag)
    return states.current()


class _CurrentStates:
    """The current lines of the parts added so far: parts are reduced in groups, as a date may have hundreds."""

    def __init__(self) -> None:
        self._reduced = STATE_SCHEMA.empty_table()
        self._newer: list[pa.Table] = []

    def add(self, lines: pa.Table) -> None:
        self._newer.append(lines)
        if sum(table.num_rows for table in self._newer) > self._reduced.num_rows:
            self._reduced = self.current()
            self._newer = []

    def current(self) -> pa.Table:
        return current_lines([self._reduced, *self._newer])


def _check_part(
    name: str, data: bytes, attested: frozenset[ObservedObject] | None, arriving: Arriving, flag: Flag
) -> dict[str, str]:
    """Compare a part with its attestations, or note the runs that wrote it if it has none.

    Return the parts that it replaces, with their SHA-256.

    Raises:
        LedgerDamaged: the part cannot be read.
    """
    if attested is None:
        with damage(name):
            runs = decode(data, ["run_id"])
        arriving.runs[name] = set(values(pc.unique(runs["run_id"]))) if runs.num_columns else set()
        return {}
    if attested != {ObservedObject(name, len(data), hashlib.sha256(data).hexdigest())}:
        flag(
            "ledger_part_altered",
            name,
            f"The ledger part {name} is not what its attestation says it was when {arriving.day} was sealed; restore "
            "its first version",
        )
        return {}
    with damage(name):
        return _replaced(data)


def _flag_unattested(unattested: Mapping[str, list[str]], arriving: Arriving, flag: Flag) -> None:
    """Report the parts added to a sealed date, once for each kind: those of a running run, and others."""
    for kind, names in unattested.items():
        for is_arriving in (False, True):
            added = [name for name in names if (name in arriving.parts) == is_arriving]
            if added:
                flag(
                    "unwitnessed",
                    added[0],
                    f"{number(len(added), 'ledger part was', 'ledger parts were')} added to {arriving.day} ({kind}, "
                    f"the first is {added[0]}) after it was last sealed, or their attestation was removed; run the "
                    "date again",
                    arriving=is_arriving,
                )


def _states(name: str, data: bytes) -> pa.Table:
    """Return the lines of a part of states; raise LedgerDamaged if one is not a valid state."""
    table = decode_part(name, data)
    with damage(name):
        for start in range(0, table.num_rows, _BATCH):
            states_from(table.slice(start, _BATCH))
    return table


def _replaced(data: bytes) -> dict[str, str]:
    """Return the parts that a part merged by version 0.1.0 replaces, with their SHA-256; none for any other part."""
    metadata = pq.read_metadata(pa.BufferReader(data)).metadata or {}
    record = json.loads(metadata.get(b"ringcx-archive/merged/1", b"{}"))
    try:
        return {part["name"]: part["sha256"] for parts in ("parts", "between") for part in record.get(parts, ())}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("its list of the parts it replaces is damaged") from error

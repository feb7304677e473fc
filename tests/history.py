"""Every line that the ledger has about a recording, also those that do not count any more."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ledger.parts import LedgerParts, decode_part
from pipelines.ledger.schema import states_from
from pipelines.ledger.states import RecordingState


def history(parts: LedgerParts, day: date, recording_id: str) -> list[RecordingState]:
    """Return the lines in the order of writing."""
    found = [
        state
        for name in parts.names(day)["recording_states"]
        for table in [decode_part(name, parts.read(name))]
        for state in states_from(table.filter(pc.equal(table["recording_id"], pa.scalar(recording_id))))
    ]
    return sorted(found, key=lambda state: state.written_at)

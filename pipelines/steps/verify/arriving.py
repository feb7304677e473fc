"""The distinction between what a running or just finished run may have written and what came from elsewhere.

A run stores recordings before it writes their states, writes states before it seals, and seals before it attests. An
object or line between two of these steps is arriving: it is recent, and the ledger expects it. Anything older that is
still unexplained is a discrepancy.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.archive.bucket import Bucket
from pipelines.archive.proof.chain import Chain
from pipelines.archive.proof.manifest import manifest_numbers
from pipelines.ledger.parts import written_at
from pipelines.ledger.schema import states_from
from pipelines.ledger.states import Status
from pipelines.steps.fetch.work_queue import WorkItem, plain_key, possible_keys

# A run writes states every minute; the store may count an upload in parts from its beginning.
WINDOW = timedelta(minutes=15)


@dataclass
class Arriving:
    """What may be arriving at a date at `now`. `runs`: the run of each ledger part that no attestation names."""

    bucket: Bucket
    day: date
    chain: Chain
    now: datetime
    runs: dict[str, set[str]] = field(default_factory=dict)

    def is_young(self, at: datetime | None) -> bool:
        """Return whether something was written within the last `WINDOW`. A time further ahead is not trusted."""
        return at is not None and abs(self.now - at) <= WINDOW

    @cached_property
    def parts(self) -> frozenset[str]:
        """The ledger parts without an attestation that are young, or whose run has written a young one."""
        young = {name for name in self.runs if self.is_young(written_at(name))}
        writing = set().union(*(self.runs[name] for name in young))
        return frozenset(name for name, runs in self.runs.items() if name in young or runs & writing)

    @cached_property
    def under_way(self) -> bool:
        """Whether a run is writing to the date, or has sealed it since its manifests were read."""
        return bool(self.parts) or manifest_numbers(self.bucket, self.day) != self.chain.numbers

    @property
    def sealed_just_now(self) -> bool:
        """Whether the run that sealed the latest manifest may not have attested and signed it yet."""
        return self.chain.latest is not None and self.is_young(self.chain.latest.sealed_at)


def awaited_keys(prefix: str, lines: pa.Table) -> set[str]:
    """Return the keys under which a run may store recordings that the ledger (STATE_SCHEMA) has not as archived."""
    rest = states_from(lines.filter(pc.not_equal(lines["status"], pa.scalar(str(Status.archived)))))
    return {key for state in rest for key in possible_keys(prefix, WorkItem(state, plain_key(prefix, state)))}

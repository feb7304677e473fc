"""The dates of a range verified one after the other, each against itself and against the day after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from types import TracebackType
from typing import Self
from zoneinfo import ZoneInfo

from pipelines.archive.bucket import Bucket
from pipelines.archive.chain import Chain, read_chain
from pipelines.archive.errors import StorageUnavailable
from pipelines.archive.keys import day_prefix
from pipelines.archive.signature import Verifier
from pipelines.calendar import day_bounds
from pipelines.ledger.files import LedgerDamaged, LedgerUnavailable
from pipelines.ledger.parts import LedgerParts
from pipelines.ledger.schema import PullRecord
from pipelines.ledger.store import Ledger
from pipelines.ringcx.columns import ReportName
from pipelines.steps.findings import number
from pipelines.steps.seal import pulls_of
from pipelines.steps.verification import evidence
from pipelines.steps.verification.doubts import DayVerdict, Doubt
from pipelines.steps.verification.objects import Reading, check_objects
from pipelines.steps.verification.scratch import Scratch
from pipelines.steps.verification.threads import Readers

OURS = ("catalog/", "conflicts/", "ledger/", "manifests/", "probes/", "recordings/", "verifications/", "witnesses/")
_DAY = timedelta(days=1)
_CHAIN_KINDS = ("manifest_", "signature_", "unwitnessed")


@dataclass(frozen=True, slots=True)
class Archive:
    """What is verified, and by what: `accounts` whose pulls must be there (empty: those that are), of the `reports`
    of RINGCX_SOURCE; `verifier` of signatures (None: they are not looked at), `threads` that read.
    """

    bucket: Bucket
    ledger: Ledger
    parts: LedgerParts
    zone: ZoneInfo
    accounts: Sequence[str]
    reports: Sequence[ReportName]
    verifier: Verifier | None
    threads: int


def verify_days(
    archive: Archive,
    first: date,
    last: date,
    reading: Reading,
    *,
    tell: Callable[[Doubt], None],
    progress: Callable[[date, int, int], None],
) -> Iterator[DayVerdict]:
    """Verify the dates from `first` to `last`, both included; each date's doubts are told before its verdict comes.

    The days before and after the range are asked only what they and the range's own manifests say of each other.
    Memory is bounded by `threads`, not by recordings, dates or doubts.

    Raises:
        StorageRefused: the settings or rights are wrong, so nothing can be said.
    """
    previous: _Day | None = None
    with Readers(archive.threads) as readers:
        for offset in range((last - first).days + 1):
            current = _Day(archive, first + _DAY * offset, tell)
            with current:
                # First its manifests alone: what they say of the date before ends that one's verdict.
                current.read_manifests()
                if previous is not None:
                    previous.before(current.chain)
                    yield previous.verdict
                current.verify(reading, readers, progress)
                if previous is None:
                    current.after(first - _DAY)
            previous = current
        if previous is not None:
            previous.before(previous.chain_of(last + _DAY))
            yield previous.verdict


def strange_keys(bucket: Bucket, ledger: str) -> Iterator[str]:
    """What lies directly under the prefix, or as a folder under `recordings/`, and is not of the documented layout;
    `ledger` is LEDGER_URL.
    """
    own = f"{ledger.removeprefix(f's3://{bucket.name}/')}/"
    for found in bucket.list_folders(bucket.prefix):
        if not (found.removeprefix(bucket.prefix).startswith(OURS) or own.startswith(found)):
            yield found
    for found in bucket.list_folders(f"{bucket.prefix}recordings/"):
        if date_of(found) is None:
            yield found


def date_of(folder: str) -> date | None:
    """The date that a folder `…/date=YYYY-MM-DD/` names; None for anything else."""
    name = folder.rstrip("/").rpartition("/")[2]
    try:
        day = date.fromisoformat(name.removeprefix("date="))
    except ValueError:
        return None
    return day if folder.endswith(f"/date={day.isoformat()}/") else None


class _Day:
    """One date on its way to a verdict."""

    def __init__(self, archive: Archive, day: date, tell: Callable[[Doubt], None]) -> None:
        self.day = day
        self.verdict = DayVerdict(day)
        self._archive = archive
        self._tell = tell
        self._chain_told: set[tuple[str, str]] = set()
        self.chain: Chain | None = None
        """The date's manifests; None when they cannot be had."""

    def tell(self, kind: str, subject: str, sentence: str) -> None:
        """Pass on a doubt. A manifest that the chain, a witness and the next day each miss is one doubt."""
        if kind.startswith(_CHAIN_KINDS):
            if (kind, subject) in self._chain_told:
                return
            self._chain_told.add((kind, subject))
        self.verdict.doubts[kind] += 1
        self._tell(Doubt(self.day, kind, subject, sentence))

    def __enter__(self) -> Self:
        self._scratch = Scratch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scratch.close()

    def read_manifests(self) -> None:
        """The date's chain, and what its latest manifest says."""
        with self._broken_off():
            chain = read_chain(
                self._archive.bucket, self.day, verifier=self._archive.verifier, entry=self._scratch.add_entry
            )
            self._scratch.flush()
            if chain.latest is None:
                self._scratch.forget_entries()
            self.chain = chain

    def verify(self, reading: Reading, readers: Readers, progress: Callable[[date, int, int], None]) -> None:
        """Everything about the date but what the days beside it say; after `read_manifests`."""
        if self.chain is None:
            return
        with self._broken_off():
            self._evidence(self.chain, readers)
            check_objects(
                self._archive.bucket,
                self._scratch,
                reading,
                self.verdict,
                readers,
                tell=self.tell,
                progress=partial(progress, self.day),
            )

    def before(self, following: Chain | None) -> None:
        """What the next day's manifests name of this date's must be there."""
        if self.chain is not None and following is not None:
            evidence.check_next_day(self.day, self.chain, self._archive.bucket, following, self.tell)

    def after(self, day: date) -> None:
        """What this date's manifests name of the `day` before it must be there."""
        earlier = self.chain_of(day)
        if self.chain is not None and earlier is not None:
            evidence.check_next_day(day, earlier, self._archive.bucket, self.chain, self.tell)

    def chain_of(self, day: date) -> Chain | None:
        """The manifests of a day beside this one; None when they cannot be had."""
        found: list[Chain] = []
        with self._broken_off():
            found.append(read_chain(self._archive.bucket, day))
        return found[0] if found else None

    def _evidence(self, chain: Chain, readers: Readers) -> None:
        archive, day, verdict, scratch, latest = self._archive, self.day, self.verdict, self._scratch, chain.latest
        verdict.manifest = None if latest is None else latest.number
        evidence.check_manifests(archive.bucket, day, chain, self.tell)
        evidence.read_ledger(
            archive.parts, archive.bucket, day, scratch, readers, tell=self.tell, sealed=bool(chain.numbers)
        )
        verdict.listed = scratch.add_objects(archive.bucket.list_keys(day_prefix(archive.bucket.prefix, day)))
        scratch.expect("ledger" if latest is None else "sealed")
        self._count(scratch.totals(), scratch.held_bytes())
        pulls = self._pulls()
        if pulls is not None:
            bounds = day_bounds(day, archive.zone)
            evidence.check_pulls(day, pulls, archive.accounts, archive.reports, bounds=bounds, tell=self.tell)
            if latest is not None:
                evidence.compare(day, scratch, latest, pulls, self.tell)
        if not chain.numbers and (verdict.found or (pulls is not None and any(pulls.values()))):
            self.tell(
                "never_sealed",
                day.isoformat(),
                f"{day} has no manifest: what the ledger says of its {number(verdict.found, 'recording')} was never "
                "sealed, or the manifest was removed; run the date again",
            )

    def _count(self, totals: Mapping[str, int], held_bytes: int) -> None:
        verdict = self.verdict
        verdict.found, verdict.held, verdict.pending = totals["found"], totals["archived"], totals["pending"]
        verdict.lost = verdict.found - verdict.held - verdict.pending
        verdict.held_bytes = held_bytes

    def _pulls(self) -> dict[ReportName, list[PullRecord]] | None:
        try:
            return pulls_of(self._archive.ledger, self.day)
        except LedgerDamaged as error:
            self.tell("ledger_part_altered", f"pulls of {self.day}", _sentence(error))
            return None

    @contextmanager
    def _broken_off(self) -> Iterator[None]:
        try:
            yield
        except (StorageUnavailable, LedgerUnavailable, LedgerDamaged) as error:
            self.tell(
                "unreadable",
                self.day.isoformat(),
                f"{self.day} could not be verified to its end: {_sentence(error)}",
            )


def _sentence(error: Exception) -> str:
    return f"{str(error)[:1].upper()}{str(error)[1:]}"

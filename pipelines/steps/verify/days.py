"""The dates of a range verified one after the other, each against itself and against the day after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageUnavailable
from pipelines.archive.keys import day_prefix
from pipelines.archive.proof.chain import Chain, read_chain
from pipelines.archive.proof.signature import Verifier
from pipelines.calendar import day_bounds
from pipelines.ledger import parts
from pipelines.ledger.files import LedgerDamaged, LedgerUnavailable
from pipelines.ledger.parts import LedgerParts
from pipelines.ledger.store import Ledger
from pipelines.ringcx.reports.columns import ReportName
from pipelines.steps.pull.coverage import pulls_of
from pipelines.steps.verify import evidence
from pipelines.steps.verify.comparison import Comparison, Line, size_of
from pipelines.steps.verify.objects import Reading, check_conflicts, check_objects
from pipelines.steps.verify.report import DayVerdict, Doubt
from pipelines.wording import number

_BY_DATE = ("catalog/", "conflicts/", "manifests/", "quarantine/", "recordings/", "verifications/")
_OURS = (*_BY_DATE, "events/", "ledger/", "probes/", "witnesses/")
_DAY = timedelta(days=1)
_UNREADABLE = (StorageUnavailable, LedgerUnavailable, LedgerDamaged)
_CHAIN_KINDS = ("manifest_", "signature_", "unwitnessed")


@dataclass(frozen=True, slots=True)
class Archive:
    """What is verified, and by what: `accounts` whose pulls must be there (empty: those that are), of the `reports`
    of RINGCX_SOURCE; `verifier` of signatures (None: they are not looked at), `threads` that read, `start` the first
    date that has runs of its own.
    """

    bucket: Bucket
    ledger: Ledger
    parts: LedgerParts
    zone: ZoneInfo
    accounts: Sequence[str]
    reports: Sequence[ReportName]
    verifier: Verifier | None
    threads: int
    start: date


def verify_days(
    archive: Archive,
    first: date,
    last: date,
    reading: Reading,
    *,
    tell: Callable[[Doubt], None],
    progress: Callable[[date, int, int], None] = lambda *_: None,
) -> Iterator[DayVerdict]:
    """Verify the dates from `first` to `last`, both included; each date's doubts are told before its verdict comes.

    The days before and after the range are asked only what they and the range's own manifests say of each other.
    Memory grows with the recordings of one date, about a kilobyte for each, and not with dates or doubts.

    Raises:
        StorageRefused: the settings or rights are wrong, so nothing can be said.
    """
    # First each date's manifests alone: what they say of the date before ends that one's verdict.
    previous = _Day(archive, first, tell)
    previous.compare_next(first - _DAY, previous.read_chain(first - _DAY), previous.chain)
    previous.verify(reading, progress)
    for offset in range((last - first).days):
        current = _Day(archive, first + _DAY * (offset + 1), tell)
        previous.compare_next(previous.day, previous.chain, current.chain)
        yield previous.verdict
        current.verify(reading, progress)
        previous = current
    previous.compare_next(last, previous.chain, previous.read_chain(last + _DAY))
    yield previous.verdict


def strays(bucket: Bucket, places: Iterable[str | None]) -> Iterator[Doubt]:
    """Yield a doubt for each object and folder that is not of the documented layout and belongs to no date: at the top
    of the prefix, and where only folders of dates should be. `places`: LEDGER_URL and EVENTS_URL, which may be there.
    """
    own = [f"{place.removeprefix(f's3://{bucket.name}/').rstrip('/')}/" for place in places if place]

    def known(key: str) -> bool:
        return key.removeprefix(bucket.prefix).startswith(_OURS) or any(
            key.startswith(place) or (key.endswith("/") and place.startswith(key)) for place in own
        )

    found = [key for key in bucket.list_folders(bucket.prefix) if key != bucket.prefix and not known(key)]
    for folder in (f"{bucket.prefix}{name}" for name in _BY_DATE):
        # A console that makes folders puts an object under the folder's own name.
        found += [key for key in bucket.list_folders(folder) if key != folder and date_of(key) is None]
    for key in found:
        yield Doubt(
            "",
            "object_stray",
            key,
            f"{key} is not part of the archive's documented layout; find out who put it there",
        )


def date_of(folder: str) -> date | None:
    """The date that a folder `…/date=YYYY-MM-DD/` names; None for anything else."""
    return parts.date_of(folder.split("/")[-2]) if folder.endswith("/") else None


class _Day:
    """One date on its way to a verdict."""

    def __init__(self, archive: Archive, day: date, tell: Callable[[Doubt], None]) -> None:
        self.day = day
        self.verdict = DayVerdict(day)
        self._archive = archive
        self._tell = tell
        self._chain_told: set[tuple[str, str]] = set()
        self._entries: dict[str, Line] = {}
        self.chain = self.read_chain(day, archive.verifier)

    def verify(self, reading: Reading, progress: Callable[[date, int, int], None]) -> None:
        """Everything about the date but what the days next to it say."""
        entries, self._entries = self._entries, {}
        if self.chain is None:
            return
        bucket, threads = self._archive.bucket, self._archive.threads
        try:
            known = self._evidence(self.chain, entries)
            check_objects(
                bucket, known, reading, self.verdict, threads, tell=self.tell, progress=partial(progress, self.day)
            )
        except _UNREADABLE as error:
            self._unreadable(error)

    def tell(self, kind: str, subject: str, sentence: str) -> None:
        """Pass on a doubt. A manifest that the chain, a witness and the next day each miss is one doubt."""
        if kind.startswith(_CHAIN_KINDS):
            if (kind, subject) in self._chain_told:
                return
            self._chain_told.add((kind, subject))
        self.verdict.doubts[kind] += 1
        self._tell(Doubt(self.day.isoformat(), kind, subject, sentence))

    def compare_next(self, day: date, chain: Chain | None, following: Chain | None) -> None:
        """What the manifests of the day after `day` name of `day`'s must be there; a doubt of this date if not."""
        if chain is not None and following is not None:
            evidence.check_next_day(day, chain, self._archive.bucket, following, self.tell)

    def read_chain(self, day: date, verifier: Verifier | None = None) -> Chain | None:
        """The manifests of this day, with its entries, or of one next to it; None when they cannot be read."""

        def take(entry: Mapping[str, Any]) -> None:
            if day == self.day:
                line = Line.of(entry)
                self._entries[line.recording_id] = line

        try:
            return read_chain(self._archive.bucket, day, verifier=verifier, entry=take)
        except _UNREADABLE as error:
            self._unreadable(error)
            return None

    def _evidence(self, chain: Chain, entries: dict[str, Line]) -> Comparison:
        archive, day, verdict, latest = self._archive, self.day, self.verdict, chain.latest
        verdict.manifest = None if latest is None else latest.number
        evidence.check_manifests(archive.bucket, day, chain, self.tell)
        evidence.check_catalog(archive.bucket, day, latest, self.tell)
        known = Comparison({} if latest is None else entries, is_sealed=latest is not None)
        known.add_ledger(
            evidence.read_ledger(
                archive.parts, archive.bucket, day, archive.threads, tell=self.tell, sealed=bool(chain.numbers)
            )
        )
        known.objects = dict(archive.bucket.list_keys(day_prefix(archive.bucket.prefix, day)))
        check_conflicts(archive.bucket, day, known.objects, self.tell)
        totals = known.totals()
        verdict.listed = len(known.objects)
        verdict.found, verdict.held, verdict.pending = totals["found"], totals["archived"], totals["pending"]
        verdict.lost = verdict.found - verdict.held - verdict.pending
        verdict.held_bytes = size_of(known.held())
        try:
            pulls = pulls_of(archive.ledger, day)
        except LedgerDamaged as error:
            self.tell("ledger_part_altered", f"pulls of {day}", _sentence(error))
            pulls = None
        if pulls is not None:
            bounds = day_bounds(day, archive.zone)
            # Recordings dated before the first date with runs were found by the pull of another date.
            if day >= archive.start or any(pulls.values()):
                evidence.check_pulls(day, pulls, archive.accounts, archive.reports, bounds=bounds, tell=self.tell)
            if latest is not None:
                evidence.compare(day, known, latest, pulls, self.tell)
        if not chain.numbers and (verdict.found or (pulls is not None and any(pulls.values()))):
            self.tell(
                "never_sealed",
                day.isoformat(),
                f"{day} has no manifest: what the ledger says of its {number(verdict.found, 'recording')} was never "
                "sealed, or the manifest was removed; run the date again",
            )
        return known

    def _unreadable(self, error: Exception) -> None:
        day = self.day.isoformat()
        self.tell("unreadable", day, f"{day} could not be verified to its end: {_sentence(error)}")


def _sentence(error: Exception) -> str:
    return f"{str(error)[:1].upper()}{str(error)[1:]}"

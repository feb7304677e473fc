"""The verification of dates, each by itself and against the next day's manifests: the dates of a range, or
some chosen at random for the restore drill.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial

from pipelines import storage
from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageUnavailable
from pipelines.archive.keys import day_prefix
from pipelines.archive.proof.attestation import MANIFESTS
from pipelines.archive.proof.chain import Chain, read_chain
from pipelines.archive.proof.manifest import Entry, ManifestEntry, ManifestHead
from pipelines.archive.proof.signature import Verifier
from pipelines.aws import S3Client
from pipelines.ledger.files import LedgerDamaged, LedgerUnavailable, date_of_folder
from pipelines.ledger.states import FINAL, Status
from pipelines.settings import VerifySettings
from pipelines.steps.check.verdict import Verdict, judge_date, worst
from pipelines.steps.pull.coverage import Pulls, pulls_of
from pipelines.steps.seal.seal_day import Stores
from pipelines.steps.verify.arriving import WINDOW, Arriving, awaited_keys
from pipelines.steps.verify.ledger_parts import read_ledger
from pipelines.steps.verify.manifests import DateFacts, check_catalog, check_manifests, check_next_day, compare
from pipelines.steps.verify.objects import Sampling, check_access_log, check_conflicts, check_objects
from pipelines.steps.verify.report import DayResult, Discrepancy
from pipelines.wording import capitalized, number

_DAY = timedelta(days=1)
_DATES = 20  # the recordings of a drill come from so many dates, or from more where these have too few
_MOST_DATES = 100
_UNREADABLE = (StorageUnavailable, LedgerUnavailable, LedgerDamaged)
_OF_UNKNOWN = ("never_pulled", "partly_pulled", "never_sealed")
ReportProgress = Callable[[date, int, int], None]
"""A function that takes a date, how many of its recordings were verified, and how many there are."""
TakeManifest = Callable[[date, ManifestHead, Iterable[ManifestEntry]], None]


@dataclass(frozen=True, slots=True)
class Archive(Stores):
    """The archive to verify. Without `ringcx_account_ids` in the settings, the accounts are those of the pulls; without
    a `verifier`, signatures are not checked.
    """

    verifier: Verifier | None
    clock: Callable[[], datetime]


def open_archive(settings: VerifySettings, s3: S3Client | None, clock: Callable[[], datetime]) -> Archive:
    """Return the archive that the settings name; raise StorageRefused or KeyUnusable if it cannot be opened."""
    stores = storage.open_stores(settings, s3, clock, max_connections=2 * settings.archive_concurrency)
    return Archive(*stores, settings, storage.verifier(settings), clock)


def verify_days(
    archive: Archive,
    first: date,
    last: date,
    sampling: Sampling,
    *,
    add: Callable[[Discrepancy], None],
    progress: ReportProgress = lambda *_: None,
    sealed: TakeManifest = lambda *_: None,
) -> Iterator[DayResult]:
    """Verify the dates from `first` to `last`, both included. `add` gets a date's discrepancies before its result;
    `sealed` gets its latest manifest with the entries, if that is good.

    Of the days before and after the range, only the links between their manifests and the range's are checked. Memory
    grows with the recordings of one date. Raises StorageRefused if settings or permissions are wrong.
    """
    current = _Day(archive, first, add)
    current.check_next_day(first - _DAY, current.read_chain(first - _DAY), current.chain)
    while current.day < last:
        current.verify(sampling, progress, sealed)
        following = _Day(archive, current.day + _DAY, add)
        current.check_next_day(current.day, current.chain, following.chain)
        yield current.finish()
        current = following
    current.verify(sampling, progress, sealed)
    current.check_next_day(last, current.chain, current.read_chain(last + _DAY))
    yield current.finish()


def sealed_dates(bucket: Bucket) -> list[date]:
    """Return all dates that were ever sealed: a date whose manifests were removed still has attestations."""
    sealed = bucket.list_folders(f"{bucket.prefix}manifests/")
    attested = bucket.list_folders(f"{bucket.prefix}witnesses/{MANIFESTS}/")
    days = {date_of_folder(folder.split("/")[-2]) for folder in (*sealed, *attested)}
    return sorted(day for day in days if day)


def drill(archive: Archive, days: Sequence[date], seed: str, add: Callable[[Discrepancy], None]) -> Iterator[DayResult]:
    """Verify some of `days`, reading ARCHIVE_DRILL_RECORDINGS recordings in all.

    A small sample every day reaches everything in time, and finds a fault of many recordings on the first day.
    """
    left, order = archive.settings.archive_drill_recordings, sorted(days)
    random.Random(seed).shuffle(order)  # noqa: S311 - a sample, printed with its seed
    for done, day in enumerate(order[:_MOST_DATES]):
        if left <= 0:
            return
        limit = math.ceil(left / max(1, min(_DATES, len(order)) - done))
        for result in verify_days(archive, day, day, Sampling(1.0, limit, seed), add=add):
            left -= result.read
            yield result


class _Day:
    """One date. Its manifests are read at once, since they complete the result of the date before."""

    def __init__(self, archive: Archive, day: date, add: Callable[[Discrepancy], None]) -> None:
        self.day = day
        self.result = DayResult(day.isoformat())
        self._archive, self._add, self._now = archive, add, archive.clock()
        self._flagged: set[tuple[str, str]] = set()
        self._entries: dict[str, ManifestEntry] = {}
        self.chain = self.read_chain(day, self._keep, archive.verifier)

    def flag(self, kind: str, subject: str, sentence: str, *, arriving: bool = False) -> None:
        """Report a discrepancy, or what is arriving, but the same one only once."""
        if (kind, subject) in self._flagged:
            return
        self._flagged.add((kind, subject))
        if arriving:
            self.result.arriving += 1
            sentence += f". A run seems to be under way: verify again after {self._now + WINDOW:%H:%M} UTC"
        else:
            self.result.discrepancies[kind] += 1
        # A forged manifest may hold lone surrogates, which no screen could show.
        subject, sentence = (text.encode("utf-8", "backslashreplace").decode() for text in (subject, sentence))
        self._add(Discrepancy(self.result.date, kind, subject, sentence, arriving))

    def verify(self, sampling: Sampling, progress: ReportProgress, sealed: TakeManifest) -> None:
        """Verify everything about the date except its links to the adjacent days."""
        if self.chain is None:
            return
        bucket, threads = self._archive.bucket, self._archive.settings.archive_concurrency
        entries, self._entries = self._entries, {}
        try:
            facts = self._facts(self.chain, entries, threads)
            self._check_stored(facts)
            if self.chain.latest is not None:
                sealed(self.day, self.chain.latest, entries.values())
            of_day = partial(progress, self.day)
            check_objects(bucket, facts, sampling, self.result, threads, flag=self.flag, progress=of_day)
            self._judge(facts)
            latest = self.chain.latest
            if latest is not None and facts.pulls is not None:
                compare(facts, latest, facts.pulls, self.flag)
                self._compare_verdict(facts, latest)
        except _UNREADABLE as error:
            self._unreadable(error)

    def finish(self) -> DayResult:
        """Return the result: a date not as sealed has gaps; while something is arriving, it is not proved complete."""
        result = self.result
        expected = _OF_UNKNOWN if result.verdict is Verdict.unknown else ()
        if counts := {kind: count for kind, count in result.discrepancies.items() if kind not in expected}:
            result.verdict = Verdict.gaps
            is_unread = counts.keys() == {"unreadable"}  # nothing is known to have changed
            what = "could not be verified completely" if is_unread else "is not as it was sealed"
            found = number(sum(counts.values()), "discrepancy", "discrepancies")
            result.reason = f"{self.day} {what}: {found}. {result.reason}".strip()
        elif result.arriving:
            result.verdict = worst([result.verdict, Verdict.waiting])
            result.reason = (
                f"A run of {self.day} seems to be under way: verify again when it has ended. {result.reason}".strip()
            )
        return result

    def check_next_day(self, day: date, chain: Chain | None, following: Chain | None) -> None:
        """Verify what the manifests of the next day say of `day`; report on this date."""
        if chain is not None and following is not None:
            check_next_day(self._archive.bucket, day, chain, following, self.flag)

    def read_chain(
        self, day: date, entry: Callable[[Entry], None] | None = None, verifier: Verifier | None = None
    ) -> Chain | None:
        """Read the manifests of this day or of a neighbouring one; return None if they cannot be read."""
        try:
            return read_chain(self._archive.bucket, day, verifier=verifier, entry=entry)
        except _UNREADABLE as error:
            self._unreadable(error)
            return None

    def _keep(self, document: Entry) -> None:
        entry = ManifestEntry._make(document.get(name) for name in ManifestEntry._fields)  # times stay text
        self._entries[entry.recording_id] = entry

    def _facts(self, chain: Chain, entries: dict[str, ManifestEntry], threads: int) -> DateFacts:
        """Verify the manifests, the access log and the ledger's parts, and return what they say."""
        archive, day = self._archive, self.day
        arriving = Arriving(archive.bucket, day, chain, self._now)
        check_manifests(arriving, self.flag)
        check_access_log(archive.bucket, day, threads, self.flag)
        facts = DateFacts(None if chain.latest is None else entries, arriving)
        # Before the ledger: every object that a run has stored by now is already pending in its ledger.
        facts.objects = dict(archive.bucket.list_keys(day_prefix(archive.bucket.prefix, day)))
        lines = read_ledger(archive.ledger.parts, arriving, threads, self.flag)
        facts.add_ledger(lines)
        if facts.unexplained():
            facts.awaited = awaited_keys(archive.bucket.prefix, lines)
        return facts

    def _check_stored(self, facts: DateFacts) -> None:
        """Verify the catalog, the conflicts and the pulls, and that a date with anything to seal was sealed."""
        archive, day, arriving = self._archive, self.day, facts.arriving
        latest = arriving.chain.latest
        if latest is not None:
            self.result.manifest = latest.number
            self.result.manifest_sha256 = latest.sha256
            check_catalog(arriving, latest, self.flag)
        check_conflicts(archive.bucket, day, facts.objects, self.flag)
        counts, result = Counter(entry.status for entry in facts.expected.values()), self.result
        result.objects = len(facts.objects)
        result.held, result.pending = counts[Status.archived], counts[Status.pending]
        result.lost = counts.total() - result.held - result.pending
        result.bytes = sum(entry.size or 0 for entry in facts.held())
        pulls: Pulls = {}
        try:
            pulls = facts.pulls = pulls_of(archive.ledger, day)
        except LedgerDamaged as error:
            self.flag("ledger_part_altered", f"pulls of {day}", capitalized(error))
        if not arriving.chain.numbers and (facts.expected or any(pulls.values())):
            self.flag(
                "never_sealed",
                self.result.date,
                f"{day} has no manifest: what the ledger says of its {number(len(facts.expected), 'recording')} "
                "was never sealed, or the manifest was removed; run the date again",
                arriving=arriving.under_way,
            )

    def _judge(self, facts: DateFacts) -> None:
        """Judge the date, and report the reports that were not pulled."""
        archive, result = self._archive, self.result
        found = judge_date(archive.ledger, archive.bucket, self.day, archive.settings, now=self._now)
        result.verdict, result.reason = found.verdict, found.sentence
        result.found = None if found.verdict is Verdict.unknown else len(facts.expected)
        result.accepted_losses = len(found.accepted)
        elsewhere = {key: str(loss.day) for key, loss in found.accepted.items() if loss.day != self.day}
        result.accepted_elsewhere = elsewhere
        result.lost -= sum(key in found.accepted and of.status in FINAL for key, of in facts.expected.items())
        facts.verdict = None if found.damage else found
        if found.damage and not result.discrepancies:  # another date is damaged: this one's damage is reported above
            self._unreadable(found.damage)
        # Recordings dated before the first date with runs were found by the pull of another date.
        if self.day >= archive.settings.archive_start_date or any((facts.pulls or {}).values()):
            for gap in (gap for gap in found.not_pulled if not gap.is_too_late):
                kind = "partly_pulled" if gap.pulled_until else "never_pulled"
                whose = f"{gap.report} of account {gap.account_id}"
                self.flag(kind, whose, f"{gap}; run {self.day}", arriving=facts.arriving.under_way)

    def _compare_verdict(self, facts: DateFacts, latest: ManifestHead) -> None:
        """Compare the verdict in the latest manifest with the one by the ledger, if nothing else explains it."""
        own = facts.verdict
        # If a recording of this date is stored under another and missing there, the other date reports it; and a date
        # that was complete under other rules may be unknown now.
        if (
            own is None
            or any(gap.is_too_late for gap in own.not_pulled)
            or own.counts["object_gone"]
            or own.counts["object_changed"]
            or self.result.discrepancies
        ):
            return
        sealed = latest.document["totals"].get("verdict")
        judged = own.sealed_verdict
        if sealed is not None and sealed != judged:
            written_now = (own.recordings["written_at"] - self._now).abs() <= WINDOW  # perhaps under another date
            self.flag(
                "verdict_differs",
                latest.key,
                f"{latest.key} says that {self.day} is {sealed}, but the ledger says {judged}; run the date again, or "
                "find out which of the two was altered",
                arriving=facts.arriving.under_way or bool(written_now.any()),
            )

    def _unreadable(self, error: Exception | str) -> None:
        self.flag("unreadable", self.result.date, f"{self.day} could not be verified completely: {capitalized(error)}")

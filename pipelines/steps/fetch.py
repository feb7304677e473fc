"""Everything `pending` and due on a date: attempted, its new state recorded.

One pass over what is due, then a second request for those whose answer would be final. It never waits for a link that
is not ready: the state says when to come back. States are written every few seconds, so that a killed run loses no
more than that, and what it had already stored is found by the next run's listing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageRefused
from pipelines.archive.keys import day_prefix
from pipelines.ledger.states import RecordingState, RetryRules, Status, archived, final
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import CredentialsRefused, SourceError, Stopped
from pipelines.ringcx.limits import LimiterBroken
from pipelines.steps.attempt import Attempt, Done, Recorders, TemporaryDiskFull, is_segment
from pipelines.steps.due import Planned, Work
from pipelines.steps.findings import number
from pipelines.steps.verdicts import Fault, judge, may_be_final

PASS = 20_000  # so many are tried before those of them are tried again whose answer would be final
FLUSH_LINES = 2000
FLUSH_EVERY = timedelta(seconds=10)
# So many in a row without one answer about a recording: the source, the log-in or S3 is at fault, not the recordings.
BREAK_AFTER = 40
STOP_SECONDS = 5.0
REFUSALS = frozenset({"unauthorized", "forbidden"})
_TROUBLESHOOTING = "the README's troubleshooting says what to check for it"
_CHECK_RIGHTS = "check that the log-in of the current API (a RingCentral JWT) has the WEM access right"


LogIn = tuple[bool, str]
"""What one log-in is good for: segments of the current API or links of the reports, at one host."""


Attempts = Callable[[Iterable[tuple[RecordingState, str]]], Generator[tuple[Done, str], None, None]]
"""Recordings, each with the key that it is to be stored under -> how each attempt ended."""


class SourceDown(Exception):  # noqa: N818 - a verdict on the run, with the sentence that the run ends with
    """So many attempts in a row failed that the run gave up; what was not tried stays due."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: recordings settled, of those due, and the bytes archived so far."""

    done: int
    due: int
    size: int


@dataclass(slots=True)
class FetchResult:
    """What a run did, in numbers: the ledger has the rest.

    Attributes:
        due: recordings that it had to attempt.
        settled: those of which it wrote a new state.
        archived: those that are held now; `adopted` of them lay in the bucket already.
        size: bytes of the archived ones.
        refused: log-in -> how many it was refused for, without proof that it is good.
    """

    due: int = 0
    settled: int = 0
    archived: int = 0
    adopted: int = 0
    size: int = 0
    refused: Counter[LogIn] = field(default_factory=Counter)


def refused_log_in(result: FetchResult) -> str | None:
    """The sentence a run must end with when recordings were refused and nothing proves the credentials good."""
    if not result.refused:
        return None
    hosts = ", ".join(sorted({host for _, host in result.refused}))
    checks = "; ".join(sorted({_what_to_check(of_segments) for of_segments, _ in result.refused}))
    return (
        f"{number(result.refused.total(), 'recording was', 'recordings were')} refused at {hosts} (HTTP 401 or 403), "
        f"and none was given to the same log-in: {checks}. What was refused stays pending and is asked for again."
    )


class Fetcher:
    """Attempts due recordings, up to `concurrency` at a time. One object a run; it appends the states that follow."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        bucket: Bucket,
        media: Recorders,
        rules: RetryRules,
        concurrency: int,
        run_id: str,
        clock: Callable[[], datetime],
        stop: threading.Event,
        progress: Callable[[Progress], None],
    ) -> None:
        self._ledger = ledger
        self._bucket = bucket
        self._media = media
        self._rules = rules
        self._concurrency = concurrency
        self._run_id = run_id
        self._clock = clock
        self._stop = stop
        self._progress = progress
        self._proven: set[LogIn] = set()
        self._gave_before: set[LogIn] = set()
        self._in_a_row = 0
        self._defect: Exception | None = None

    def run(self, work: Iterable[Work]) -> FetchResult:
        """Attempt every recording that is due, portion by portion; each is asked for when the one before is settled and
        its states are written.

        Raises:
            SourceDown: after `BREAK_AFTER` failures in a row that say nothing about the recordings.
            StorageRefused: the bucket does not take what is put.
            Exception: the first defect that an attempt met, once all others have been settled.
        """
        result = FetchResult()
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="recording")
        try:
            with _Lines(self._ledger, self._clock) as lines:
                for one in work:
                    self._portion(one, pool, lines, result)
                    lines.flush()
                    del one  # before the next is read
        finally:
            pool.shutdown(wait=False)
        if self._defect is not None:
            raise self._defect
        return result

    def _portion(self, work: Work, pool: Executor, lines: _Lines, result: FetchResult) -> None:
        due = work.due
        result.due += len(due)
        if len(due):
            self._gave_before |= {_log_in(one) for one in work.known.of_each_origin()}
        attempt = Attempt(self._bucket, self._media, self._existing(due), self._stop)
        for part in due.batches(PASS):
            self._pass(partial(self._attempts, attempt, pool, lines, result), part, lines, result)

    def _existing(self, due: Planned) -> frozenset[str]:
        """What lies in the archive already and may be one of these."""
        prefixes = [day_prefix(self._bucket.prefix, day) for day in due.days()]
        return due.among(key for prefix in prefixes for key, _ in self._bucket.list_keys(prefix))

    def _pass(self, attempts: Attempts, due: Planned, lines: _Lines, result: FetchResult) -> None:
        """Attempt each, and those whose answer would be final once more."""
        doubtful: dict[str, tuple[Done, str]] = {}
        try:
            with closing(attempts(due)) as first:
                for done, key in first:
                    if done.fault and may_be_final(done.state, done.fault, self._rules, self._clock()):
                        doubtful[done.state.recording_id] = done, key
                    else:
                        self._settle(done, result, lines, before=None)
            with closing(attempts([(done.state, key) for done, key in doubtful.values()])) as second:
                for done, _ in second:
                    before, _ = doubtful.pop(done.state.recording_id)
                    self._settle(done, result, lines, before=before)
        finally:
            # Broken off before the second request: what the first one said is kept, and nothing is final.
            for done, _ in doubtful.values():
                self._settle(done, result, lines, before=None)

    def _attempts(
        self,
        attempt: Attempt,
        pool: Executor,
        lines: _Lines,
        result: FetchResult,
        due: Iterable[tuple[RecordingState, str]],
    ) -> Generator[tuple[Done, str], None, None]:
        """Attempt each, yielding in the order in which they end. Only what is in flight is held."""
        waiting = iter(due)
        running: dict[Future[Done], tuple[RecordingState, str]] = {}
        ended: SimpleQueue[Future[Done]] = SimpleQueue()

        try:
            while True:
                for state, key in islice(waiting, 2 * self._concurrency - len(running)):
                    future = pool.submit(attempt, state, key)
                    running[future] = state, key
                    future.add_done_callback(ended.put)
                if not running:
                    return
                for future in _next_of(ended):
                    state, key = running.pop(future)
                    done = self._outcome(future, state)
                    self._watch(done)
                    yield done, key
                lines.flush_in_time()
                self._progress(Progress(result.settled, result.due, result.size))
        except BaseException:
            # Terminated or broken off: the threads end at their next block; what they still store is adopted later.
            self._stop.set()
            raise
        finally:
            # A cancelled one never tells its waiters: they would wait their full time for it.
            wait([future for future in running if not future.cancel()], timeout=STOP_SECONDS)

    def _outcome(self, future: Future[Done], state: RecordingState) -> Done:
        """How the attempt ended. A defect met at one recording is raised at the end, so that it stops no other."""
        try:
            return future.result()
        except (Stopped, StorageRefused, LimiterBroken):
            raise
        except SourceError as refusal:  # of the log-in, the network or the account: other recordings may still be had
            self._defect = self._defect or refusal
            reason = "log_in_refused" if isinstance(refusal, CredentialsRefused) else "source_refused"
            return Done(state, fault=Fault("unavailable", reason))
        except TemporaryDiskFull as full:
            self._defect = self._defect or full
            return Done(state, fault=Fault("unavailable", "temporary_disk_full"))
        except Exception as defect:  # noqa: BLE001 - raised again by run()
            self._defect = self._defect or defect
            return Done(state, fault=Fault("unavailable", "defect"))

    def _watch(self, done: Done) -> None:
        self._in_a_row = self._in_a_row + 1 if self._says_nothing(done) else 0
        if done.fault is not None and self._in_a_row >= BREAK_AFTER:
            check = _what_to_check(is_segment(done.state)) if done.fault.reason in REFUSALS else _TROUBLESHOOTING
            raise self._defect or SourceDown(
                f"{BREAK_AFTER} recordings in a row could not be had, the last one with `{done.fault.reason}`: the run "
                f"stopped, what it did not try stays due; {check}."
            )

    def _says_nothing(self, done: Done) -> bool:
        """Whether the outcome is about the source or the log-in, and not about the recording."""
        if done.fault is None or done.fault.kind != "refused":
            return done.fault is not None and done.fault.kind == "unavailable"
        return not self._is_proven(done)

    def _is_proven(self, done: Done) -> bool:
        """Whether the log-in is known to be good where the recording was refused.

        A recording given in this run proves it. One given in an earlier run does not, since a password may have been
        changed since; that much counts only for a 403 that has stayed one until the recording is given up.
        """
        log_in, fault = _log_in(done.state), done.fault
        forbidden = fault is not None and fault.reason == "forbidden"
        patient = forbidden and done.state.attempts > 0 and self._rules.gives_up(done.state, self._clock())
        return log_in in self._proven or (patient and log_in in self._gave_before)

    def _settle(self, done: Done, result: FetchResult, lines: _Lines, *, before: Done | None) -> None:
        now = self._clock()
        if done.stored is not None:
            stored = done.stored
            if not stored.adopted:
                self._proven.add(_log_in(done.state))
            state = archived(
                done.state,
                key=stored.key,
                size=stored.size,
                sha256=stored.sha256,
                duration_s=done.duration_s,
                etag=stored.etag,
                version_id=stored.version_id,
                warnings=done.warnings,
                now=now,
                run_id=self._run_id,
                attempted=not stored.adopted,
            )
            result.size += stored.size
            result.adopted += stored.adopted
        elif done.fault is not None:
            state = judge(
                done.state,
                done.fault,
                confirmed=before is not None and before.fault is not None and before.fault.kind == done.fault.kind,
                credentials_proven=self._is_proven(done),
                rules=self._rules,
                now=now,
                run_id=self._run_id,
            )
        else:
            state = final(done.state, Status.rejected, "conflict", now, self._run_id)
        result.settled += 1
        result.archived += state.status is Status.archived
        if state.status is Status.pending and state.reason in REFUSALS:
            result.refused[_log_in(state)] += 1
        lines.add(state)


class _Lines:
    """Gathers state lines and appends them in batches; leaving it, for whatever reason, appends the rest."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._waiting: list[RecordingState] = []
        self._since = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except BaseException as ended:
            if not isinstance(ended, Exception):  # terminated at this very moment: write them all the same, then end
                self.flush()
            raise

    def add(self, state: RecordingState) -> None:
        self._waiting.append(state)
        self.flush_in_time()

    def flush_in_time(self) -> None:
        """Append what is waiting if it is much, or has waited long."""
        if len(self._waiting) >= FLUSH_LINES or self._clock() - self._since >= FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Append what is waiting."""
        # Forgotten only once they are written: an interrupt between the two writes them twice, which changes nothing.
        self._ledger.append_states(self._waiting)
        self._waiting, self._since = [], self._clock()


def _next_of(ended: SimpleQueue[Future[Done]]) -> list[Future[Done]]:
    """The next that ends, or none after a second."""
    try:
        return [ended.get(timeout=1.0)]
    except Empty:
        return []


def _what_to_check(of_segments: bool) -> str:
    return _CHECK_RIGHTS if of_segments else "check RINGCX_MEDIA_USERNAME and RINGCX_MEDIA_PASSWORD"


def _log_in(state: RecordingState) -> LogIn:
    return is_segment(state), _host(state.link)


def _host(link: str) -> str:
    return urlsplit(link).netloc.lower().rpartition("@")[2]

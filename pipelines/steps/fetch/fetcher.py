"""Everything `pending` and due on a date: attempted, its new state recorded.

It never waits for a link that is not ready: the state says when to come back. States are written now and then: what a
killed run had stored and not written down is found by the next run's listing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageRefused
from pipelines.archive.keys import day_prefix
from pipelines.ledger.states import RecordingState, RetryRules, Status, archived, final
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import AccountUnknown, CredentialsRefused, SourceError, Stopped
from pipelines.ringcx.limits.store import LimiterBroken
from pipelines.steps.fetch.attempt import FIREWALL, Attempt, Done, Recorders, TemporaryDiskFull, is_ours, is_segment
from pipelines.steps.fetch.outcomes import Fault, judge
from pipelines.steps.fetch.work_queue import Planned, Work
from pipelines.wording import number

FLUSH_LINES = 10_000
FLUSH_EVERY = timedelta(seconds=60)
# So many in a row that may be the fault of the source, the log-in or S3, and not of the recordings.
BREAK_AFTER = 40
STOP_SECONDS = 5.0
_TROUBLESHOOTING = "docs/troubleshooting.md says what to check"


LogIn = tuple[bool, str]
"""What one log-in is good for: segments of the current API or links of the reports, at one host."""


class SourceDown(Exception):  # noqa: N818 - a verdict on the run, with the sentence that the run ends with
    """So many attempts in a row failed that the run gave up; what was not tried stays due."""


@dataclass(slots=True)
class FetchResult:
    """What a run did so far, in numbers: the ledger has the rest.

    Attributes:
        due: recordings that it had to attempt.
        settled: those of which it wrote a new state.
        archived: recordings that are held now; `adopted` of them were already in the bucket.
        size: bytes of the archived ones.
        refused: log-in that gave no recording -> how many it was refused for.
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
    checks = "; ".join(sorted({_credentials(of_segments) for of_segments, _ in result.refused}))
    return (
        f"{number(result.refused.total(), 'recording was', 'recordings were')} refused at {hosts} (HTTP 401 or 403), "
        f"and the same log-in could fetch none: {checks}. What was refused stays pending and is tried again."
    )


@dataclass(slots=True, kw_only=True)
class Fetcher:
    """Attempts due recordings, up to `concurrency` at a time. One object a run; it appends the states that follow."""

    ledger: Ledger
    bucket: Bucket
    media: Recorders
    rules: RetryRules
    concurrency: int
    run_id: str
    clock: Callable[[], datetime]
    stop: threading.Event
    progress: Callable[[FetchResult], None]
    quarantine_bytes: int
    _result: FetchResult = field(default_factory=FetchResult, init=False)
    _unwritten: list[RecordingState] = field(default_factory=list, init=False)
    _written_at: datetime = field(init=False)
    _given: set[LogIn] = field(default_factory=set, init=False)
    _gave_before: set[LogIn] = field(default_factory=set, init=False)
    _undecided: list[Done] = field(default_factory=list, init=False)
    _in_a_row: int = field(default=0, init=False)
    _defect: Exception | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._written_at = self.clock()

    def run(self, work: Work) -> FetchResult:
        """Attempt every recording that is due.

        Raises:
            SourceDown: after `BREAK_AFTER` failures in a row that say nothing about the recordings.
            StorageRefused: the bucket does not take what is put.
            Exception: the first defect that an attempt met, once all others have been settled.
        """
        result = self._result
        result.due = len(work.due)
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="recording")
        try:
            self._attempt_all(work, pool)
        finally:
            pool.shutdown(wait=False)
            self._write_last()
        if self._defect is not None:
            raise self._defect
        for log_in in self._given:
            del result.refused[log_in]
        return result

    def _attempt_all(self, work: Work, pool: Executor) -> None:
        due = work.due
        if len(due):
            self._gave_before = {_log_in(one) for one in work.known.of_each_origin()}
        attempt = Attempt(
            bucket=self.bucket,
            media=self.media,
            existing=self._existing(due),
            stop=self.stop,
            rules=self.rules,
            clock=self.clock,
            quarantine_bytes=self.quarantine_bytes,
        )
        try:
            with closing(self._attempts(attempt, pool, due)) as attempts:
                for done in attempts:
                    self._take(done)
        except BaseException:
            # What the source said while it was failing is no verdict on a recording.
            self._undecided = [
                replace(done, fault=Fault("unavailable", done.fault.reason)) for done in self._undecided if done.fault
            ]
            raise
        finally:
            while self._undecided:
                self._settle(self._undecided.pop())

    def _existing(self, due: Planned) -> frozenset[str]:
        """Return what is already in the archive and may be one of these."""
        prefixes = [day_prefix(self.bucket.prefix, day) for day in due.days()]
        return due.among(key for prefix in prefixes for key, _ in self.bucket.list_keys(prefix))

    def _take(self, done: Done) -> None:
        """Settle an outcome, or hold it back until a recording is given to the same log-in.

        Raises:
            SourceDown: it is one too many of those that say nothing.
        """
        log_in = _log_in(done.state)
        if done.stored is not None and not done.stored.adopted:
            self._given.add(log_in)
            believed = [one for one in self._undecided if _log_in(one.state) == log_in]
            self._undecided = [one for one in self._undecided if _log_in(one.state) != log_in]
            for one in believed:
                self._settle(one, believed=True)
        if is_in_doubt := self._is_in_doubt(done):
            self._undecided.append(done)
        else:
            self._settle(done, believed=True)
        says_nothing = is_in_doubt or (done.fault is not None and done.fault.kind == "unavailable")
        self._in_a_row = self._in_a_row + 1 if says_nothing else 0
        if done.fault is not None and self._in_a_row >= BREAK_AFTER:
            raise self._defect or SourceDown(
                f"{BREAK_AFTER} recordings in a row could not be fetched, the last one with `{done.fault.reason}`: the "
                f"run stopped, what it did not try stays due; {_what_to_check(done)}."
            )

    def _is_in_doubt(self, done: Done) -> bool:
        """Whether the answer may be about the source or the log-in, as long as no recording is given after it.

        A refusal always may, unless it has stayed one past the time of giving up at a log-in that was given others: a
        403 past `ARCHIVE_GIVE_UP_DAYS`; a 401 and a firewall's 403 as long as the source keeps the recording, since a
        password may have been changed and a firewall means how often we ask. Another answer may if the log-in was
        never given a recording of the date, as when the account is another one's; not a 202, nor a 404 for a recording
        that the source may still be making.
        """
        fault, state, now = done.fault, done.state, done.at or self.clock()
        if fault is None or fault.kind == "unavailable" or is_ours(fault):
            return False
        is_known = _log_in(state) in self._given | self._gave_before
        if fault.kind == "refused":
            is_old = self.rules.gives_up if fault.reason == "forbidden" else self.rules.is_purged
            return not (is_known and is_old(state, now) and self.rules.is_patient(state, now))
        is_being_made = fault.reason == "still_encoding" or (
            fault.kind == "not_there" and self.rules.is_young(state, now)
        )
        return not (is_known or is_being_made or self.rules.is_purged(state, now))

    def _attempts(
        self, attempt: Attempt, pool: Executor, due: Iterable[tuple[RecordingState, str]]
    ) -> Generator[Done, None, None]:
        """Attempt each, yielding in the order in which they end. Only what is in flight is held."""
        waiting = iter(due)
        running: dict[Future[Done], RecordingState] = {}
        ended: SimpleQueue[Future[Done]] = SimpleQueue()

        try:
            while True:
                for state, key in islice(waiting, 2 * self.concurrency - len(running)):
                    future = pool.submit(attempt, state, key)
                    running[future] = state
                    future.add_done_callback(ended.put)
                if not running:
                    return
                with suppress(Empty):
                    future = ended.get(timeout=1.0)
                    yield self._outcome(future, running.pop(future))
                self._write_in_time()
                self.progress(self._result)
        except BaseException:
            # Terminated or broken off: the threads end at their next block; what they still store is adopted later.
            self.stop.set()
            raise
        finally:
            # A cancelled one never tells its waiters: they would wait their full time for it.
            wait([future for future in running if not future.cancel()], timeout=STOP_SECONDS)

    def _outcome(self, future: Future[Done], state: RecordingState) -> Done:
        """How the attempt ended. A defect met at one recording is raised at the end, so that it stops no other."""
        try:
            return future.result()
        except (AccountUnknown, Stopped, StorageRefused, LimiterBroken):
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

    def _settle(self, done: Done, *, believed: bool = False) -> None:
        """Work out the state that follows, count it, and have it written."""
        now, result = self.clock(), self._result
        if done.stored is not None:
            stored = done.stored
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
                run_id=self.run_id,
                attempted=not stored.adopted,
            )
            result.size += stored.size
            result.adopted += stored.adopted
        elif done.fault is not None:
            now = done.at or now
            state = judge(done.state, done.fault, believed=believed, rules=self.rules, now=now, run_id=self.run_id)
            log_in = _log_in(state)
            is_forbidden = done.fault.reason == "forbidden" and log_in in self._gave_before
            if state.status is Status.pending and done.fault.kind == "refused" and not is_forbidden:
                result.refused[log_in] += 1
        else:
            state = final(done.state, Status.rejected, "conflict", now, self.run_id)
        result.settled += 1
        result.archived += state.status is Status.archived
        self._unwritten.append(state)
        self._write_in_time()

    def _write_in_time(self) -> None:
        """Append what is waiting if it is much, or has waited long."""
        if len(self._unwritten) >= FLUSH_LINES or self.clock() - self._written_at >= FLUSH_EVERY:
            self._write()

    def _write(self) -> None:
        # Forgotten only once they are written: an interrupt between the two writes them twice, which changes nothing.
        self.ledger.append_states(self._unwritten)
        self._unwritten, self._written_at = [], self.clock()

    def _write_last(self) -> None:
        try:
            self._write()
        except Exception:
            raise
        except BaseException:  # terminated at this very moment: write them all the same, then end
            self._write()
            raise


def _what_to_check(done: Done) -> str:
    fault = done.fault
    if fault is None or fault.kind == "unavailable":
        return _TROUBLESHOOTING
    if fault.reason == FIREWALL:
        return "a firewall in front of the source refuses our requests: lower RINGCX_LIMIT_MEDIA to send fewer of them"
    if fault.kind == "refused":
        return _credentials(is_segment(done.state))
    return (
        "not one could be fetched: check RINGCX_RC_ACCOUNT_ID and RINGCX_ACCOUNT_IDS, and ask RingCentral whether "
        "recording is activated for the account"
    )


def _credentials(of_segments: bool) -> str:
    if of_segments:
        return "check that the log-in of the current API (a RingCentral JWT) has the WEM access right"
    return "check RINGCX_MEDIA_USERNAME and RINGCX_MEDIA_PASSWORD"


def _log_in(state: RecordingState) -> LogIn:
    return is_segment(state), urlsplit(state.link).netloc.lower().rpartition("@")[2]

"""The fetcher: it attempts every due recording of a date and appends each new state to the ledger.

States are written in batches: if a run is killed, the next run's listing finds the objects that are not recorded.
"""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from urllib.parse import urlsplit

from pipelines.archive.errors import StorageRefused
from pipelines.archive.keys import day_prefix
from pipelines.archive.transfer import Stored
from pipelines.errors import ExpectedError, TemporaryDiskFull
from pipelines.ledger.schema import values
from pipelines.ledger.states import RecordingState
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import AccountUnknown, CredentialsRefused, SourceError, Stopped
from pipelines.ringcx.limits.store import LimiterBroken
from pipelines.steps.fetch.attempt import FIREWALL, Attempt
from pipelines.steps.fetch.outcomes import Fault, Outcome, age, is_in_doubt, next_state
from pipelines.steps.fetch.work_queue import WorkQueue, is_segment, possible_keys
from pipelines.wording import number

FLUSH_STATES = 10_000
FLUSH_EVERY = timedelta(seconds=60)
# After this many failures in a row that may be due to the source, the log-in or S3, the run stops.
BREAK_AFTER = 40
STOP_SECONDS = 5.0  # the wait for attempts in flight to reach their next block; longer delays the event that it ended
# The reason after an unexpected error; the first one is raised at the end, so that it stops no other recording.
_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (CredentialsRefused, "log_in_refused"),
    (SourceError, "source_refused"),
    (TemporaryDiskFull, "temporary_disk_full"),
    (StorageRefused, "storage_refused"),
    (Exception, "defect"),
)

LogIn = tuple[bool, str]
"""What one log-in can fetch: segments of the current API or links of the reports, at one host."""


@dataclass(slots=True)
class FetchResult:
    """The progress of a run: recordings `due`, `settled` by a new state, `archived`, of these `adopted`; bytes."""

    due: int = 0
    settled: int = 0
    archived: int = 0
    adopted: int = 0
    size: int = 0


@dataclass(slots=True)
class Fetcher:
    """A runner of attempts at due recordings, up to `concurrency` at a time. Use one object for one run."""

    attempt: Attempt
    ledger: Ledger
    concurrency: int
    run_id: str
    progress: Callable[[FetchResult], None]
    _result: FetchResult = field(default_factory=FetchResult, init=False)
    _unwritten: list[RecordingState] = field(default_factory=list, init=False)
    _written_at: datetime = field(init=False)
    _worked_before: set[LogIn] = field(default_factory=set, init=False)
    _working: set[LogIn] = field(default_factory=set, init=False)
    _undecided: list[tuple[LogIn, Outcome, Fault]] = field(default_factory=list, init=False)
    _running: dict[Future[Outcome], RecordingState] = field(default_factory=dict, init=False)
    _failures_in_a_row: int = field(default=0, init=False)
    _not_taken_in_a_row: int = field(default=0, init=False)
    _first_error: Exception | None = field(default=None, init=False)

    def run(self, queue: WorkQueue) -> FetchResult:
        """Attempt every recording of the queue; `progress` is called at least once a second.

        Raises ExpectedError if too many consecutive failures are not about the recordings, or if recordings were
        refused and nothing proves that the log-in works; StorageRefused if the bucket cannot be listed; and, after all
        other attempts were settled, the first unexpected error or refusal of the bucket.
        """
        self._result.due, self._written_at = len(queue), self.attempt.clock()
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="recording")
        was_broken_off = False
        try:
            self._attempt_all(queue, pool)
        except BaseException:
            # Terminated or failed: the threads end at their next block; the next run adopts what they still store.
            self.attempt.stop.set()
            was_broken_off = True
            raise
        finally:
            for log_in, outcome, fault in self._undecided:
                # An answer from a failing source proves nothing about a recording that it may still give.
                is_old = age(outcome.state, outcome.at) > self.attempt.rules.kept_for
                is_gone = is_old and log_in in self._working | self._worked_before
                result = Fault("unavailable", fault.reason) if was_broken_off and not is_gone else fault
                self._settle(replace(outcome, result=result), believed=False)
            self._write()
            pool.shutdown(wait=False, cancel_futures=True)
            wait([future for future in self._running if not future.cancelled()], timeout=STOP_SECONDS)
        if self._first_error is not None:
            raise self._first_error
        self._require_log_ins()
        return self._result

    def _attempt_all(self, queue: WorkQueue, pool: ThreadPoolExecutor) -> None:
        """Attempt each recording; keep only those in flight in memory."""
        if len(queue):
            held = queue.recordings.held
            self._worked_before = set(map(_log_in, values(held["source"]), values(held["link"])))
        bucket, items = self.attempt.bucket, iter(queue)
        prefixes = [day_prefix(bucket.prefix, date) for date in queue.dates()]
        existing = frozenset(key for prefix in prefixes for key, _ in bucket.list_keys(prefix))
        while True:
            for item in islice(items, 2 * self.concurrency - len(self._running)):
                stored = existing and existing & possible_keys(bucket.prefix, item)
                self._running[pool.submit(self.attempt, item, stored)] = item.state
            if not self._running:
                return
            ended, _ = wait(self._running, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in [future for future in self._running if future in ended]:  # in the order of the attempts
                self._take(self._outcome(future, self._running.pop(future)))
            if len(self._unwritten) >= FLUSH_STATES or self.attempt.clock() - self._written_at >= FLUSH_EVERY:
                self._write()
            self.progress(self._result)

    def _outcome(self, future: Future[Outcome], state: RecordingState) -> Outcome:
        """Return how the attempt ended. An unexpected error is raised at the end, and stops no other attempt."""
        try:
            return future.result()
        except (AccountUnknown, Stopped, LimiterBroken):
            raise
        except Exception as defect:  # noqa: BLE001 - raised again by run()
            self._first_error = self._first_error or defect
            reason = next(reason for kind, reason in _REASONS if isinstance(defect, kind))
            return Outcome(state, self.attempt.clock(), Fault("unavailable", reason))

    def _take(self, outcome: Outcome) -> None:
        """Settle an outcome, or hold it back until the same log-in has fetched a recording.

        Raises ExpectedError if too many consecutive outcomes are not about their recordings.
        """
        result, log_in = outcome.result, _log_in(outcome.state.source, outcome.state.link)
        if isinstance(result, Stored):
            if not result.adopted:
                self._not_taken_in_a_row = 0
                self._working.add(log_in)
                for earlier_log_in, earlier, _ in self._undecided:
                    if earlier_log_in == log_in:
                        self._settle(earlier, believed=True)
                self._undecided = [entry for entry in self._undecided if entry[0] != log_in]
            self._settle(outcome, believed=True)
            self._failures_in_a_row = 0
            return
        works = log_in in self._working | self._worked_before
        doubted = is_in_doubt(outcome, log_in_works=works, rules=self.attempt.rules)
        if doubted:
            self._undecided.append((log_in, outcome, result))
        else:
            self._settle(outcome, believed=True)
        self._failures_in_a_row = self._failures_in_a_row + 1 if doubted or result.kind == "unavailable" else 0
        # Absent recordings between them do not show that the bucket takes one.
        self._not_taken_in_a_row += result.reason == "storage_refused"
        if max(self._failures_in_a_row, self._not_taken_in_a_row) >= BREAK_AFTER:
            raise self._first_error or ExpectedError(
                f"{BREAK_AFTER} recordings in a row could not be fetched, the last one with `{result.reason}`, so the "
                f"run stopped. What it did not try stays due; {_what_to_check(outcome.state, result)}."
            )

    def _settle(self, outcome: Outcome, *, believed: bool) -> None:
        """Work out the next state, count it, and queue it for writing."""
        result = self._result
        if isinstance(outcome.result, Stored):
            result.archived += 1
            result.adopted += outcome.result.adopted
            result.size += outcome.result.size
        result.settled += 1
        rules, run_id = self.attempt.rules, self.run_id
        self._unwritten.append(next_state(outcome, believed=believed, rules=rules, run_id=run_id))

    def _write(self) -> None:
        self.ledger.append_states(self._unwritten)
        # Cleared only after the write: an interrupt between the two writes them twice, which is harmless.
        self._unwritten, self._written_at = [], self.attempt.clock()

    def _require_log_ins(self) -> None:
        """Raise ExpectedError if recordings were refused and nothing proves that the log-in works."""
        refused = [
            (outcome.state, fault)
            for log_in, outcome, fault in self._undecided
            if fault.kind == "refused" and log_in not in self._working
            if fault.reason != "forbidden" or log_in not in self._worked_before
        ]
        if refused:
            hosts = ", ".join(sorted({_host(state.link) for state, _ in refused}))
            checks = "; ".join(sorted({_what_to_check(*refusal) for refusal in refused}))
            recordings = number(len(refused), "recording was", "recordings were")
            raise ExpectedError(
                f"{recordings} refused at {hosts} (HTTP 401 or 403), and the same log-in could fetch none: "
                f"{checks}. What was refused stays pending and is tried again."
            )


def _what_to_check(state: RecordingState, fault: Fault) -> str:
    if fault.kind == "unavailable":
        return "docs/troubleshooting.md says what to check"
    if fault.reason == FIREWALL:
        return "a firewall in front of the source refuses the requests: lower RINGCX_LIMIT_MEDIA to send fewer of them"
    if fault.kind == "refused":
        if is_segment(state.source, state.link):
            return "check that the log-in of the current API (a RingCentral JWT) has the WEM access right"
        return "check RINGCX_MEDIA_USERNAME and RINGCX_MEDIA_PASSWORD"
    return (
        "no recording could be fetched: check RINGCX_RC_ACCOUNT_ID and RINGCX_ACCOUNT_IDS, and ask RingCentral whether "
        "recording is activated for the account"
    )


def _log_in(source: str, link: str) -> LogIn:
    return is_segment(source, link), _host(link)


def _host(link: str) -> str:
    return urlsplit(link).netloc.lower().rpartition("@")[2]

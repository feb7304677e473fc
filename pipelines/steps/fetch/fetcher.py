"""The fetcher: it attempts every due recording of a date and appends each new state to the ledger.

States are written in batches: if a run is killed, the next run's listing finds the objects that are not recorded.
"""

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from urllib.parse import urlsplit

from pipelines.archive.errors import StorageRefused
from pipelines.archive.keys import day_prefix
from pipelines.errors import ExpectedError, TemporaryDiskFull
from pipelines.ledger.schema import values
from pipelines.ledger.states import RecordingState, archived
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import AccountUnknown, CredentialsRefused, SourceError, Stopped
from pipelines.ringcx.limits.store import LimiterBroken
from pipelines.steps.fetch.attempt import FIREWALL, Attempt
from pipelines.steps.fetch.outcomes import Archived, Failed, Fault, age, is_in_doubt, next_state
from pipelines.steps.fetch.work_queue import WorkQueue, possible_keys
from pipelines.steps.link.allowed_links import is_segment
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
    _undecided: dict[LogIn, list[Failed]] = field(default_factory=lambda: defaultdict(list), init=False)
    _running: dict[Future[Archived | Failed], RecordingState] = field(default_factory=dict, init=False)
    _failures_in_a_row: int = field(default=0, init=False)
    _not_taken_in_a_row: int = field(default=0, init=False)
    _first_error: Exception | None = field(default=None, init=False)

    def run(self, queue: WorkQueue) -> FetchResult:
        """Attempt every recording of the queue; `progress` is called at least once a second.

        Raises ExpectedError if too many consecutive failures are not about the recordings, or if recordings were
        refused and nothing proves that the log-in works; StorageRefused if the bucket cannot be listed; and, after all
        other attempts were settled, the first unexpected error or refusal of the bucket.
        """
        self._result.due = len(queue)
        self._written_at = self.attempt.clock()
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
            self._settle_undecided(was_broken_off=was_broken_off)
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
            archived = queue.recordings.archived
            self._worked_before = set(map(_log_in, values(archived["source"]), values(archived["link"])))
        bucket = self.attempt.bucket
        items = iter(queue)
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
                outcome = self._outcome(future, self._running.pop(future))
                if isinstance(outcome, Archived):
                    self._take_archived(outcome)
                else:
                    self._take_failed(outcome)
            if len(self._unwritten) >= FLUSH_STATES or self.attempt.clock() - self._written_at >= FLUSH_EVERY:
                self._write()
            self.progress(self._result)

    def _outcome(self, future: Future[Archived | Failed], state: RecordingState) -> Archived | Failed:
        """Return how the attempt ended. An unexpected error is raised at the end, and stops no other attempt."""
        try:
            return future.result()
        except (AccountUnknown, Stopped, LimiterBroken):
            raise
        except Exception as defect:  # noqa: BLE001 - raised again by run()
            self._first_error = self._first_error or defect
            reason = next(reason for kind, reason in _REASONS if isinstance(defect, kind))
            return Failed(state, self.attempt.clock(), Fault("unavailable", reason))

    def _take_archived(self, outcome: Archived) -> None:
        """Settle a recording. If it was fetched, its log-in works: settle the failures held back for it, too."""
        state, stored = outcome.state, outcome.stored
        if not stored.adopted:
            log_in = _log_in(state.source, state.link)
            self._not_taken_in_a_row = 0
            self._working.add(log_in)
            for earlier in self._undecided.pop(log_in, []):
                self._settle_failed(earlier, believed=True)
        self._failures_in_a_row = 0
        self._result.archived += 1
        self._result.adopted += stored.adopted
        self._result.size += stored.size
        held = asdict(stored) | {"duration_s": outcome.duration_s, "warnings": outcome.warnings}
        is_fetched = not held.pop("adopted")
        self._settle(archived(state, now=outcome.at, run_id=self.run_id, attempted=is_fetched, **held))

    def _take_failed(self, failed: Failed) -> None:
        """Settle a failed attempt, or hold it back until its log-in works; raise ExpectedError after too many."""
        fault, log_in = failed.fault, _log_in(failed.state.source, failed.state.link)
        works = log_in in self._working | self._worked_before
        doubted = is_in_doubt(failed, log_in_works=works, rules=self.attempt.rules)
        if doubted:
            self._undecided[log_in].append(failed)
        else:
            self._settle_failed(failed, believed=True)
        self._failures_in_a_row = self._failures_in_a_row + 1 if doubted or fault.kind == "unavailable" else 0
        # Absent recordings between them do not show that the bucket takes one.
        self._not_taken_in_a_row += fault.reason == "storage_refused"
        if max(self._failures_in_a_row, self._not_taken_in_a_row) >= BREAK_AFTER:
            raise self._first_error or ExpectedError(
                f"{BREAK_AFTER} recordings in a row could not be fetched, the last one with `{fault.reason}`, so the "
                f"run stopped. What it did not try stays due; {_what_to_check(failed)}."
            )

    def _settle_undecided(self, *, was_broken_off: bool) -> None:
        for log_in, failures in self._undecided.items():
            for failed in failures:
                # An answer from a failing source proves nothing about a recording that it may still give.
                is_old = age(failed.state, failed.at) > self.attempt.rules.kept_for
                is_gone = is_old and log_in in self._working | self._worked_before
                unavailable = was_broken_off and not is_gone
                fault = Fault("unavailable", failed.fault.reason) if unavailable else failed.fault
                self._settle_failed(replace(failed, fault=fault), believed=False)

    def _settle_failed(self, failed: Failed, *, believed: bool) -> None:
        self._settle(next_state(failed, believed=believed, rules=self.attempt.rules, run_id=self.run_id))

    def _settle(self, line: RecordingState) -> None:
        self._result.settled += 1
        self._unwritten.append(line)

    def _write(self) -> None:
        self.ledger.append_states(self._unwritten)
        # Cleared only after the write: an interrupt between the two writes them twice, which is harmless.
        self._unwritten = []
        self._written_at = self.attempt.clock()

    def _require_log_ins(self) -> None:
        """Raise ExpectedError if recordings were refused and nothing proves that the log-in works."""
        refused = [
            failed
            for log_in, failures in self._undecided.items()
            for failed in failures
            if failed.fault.kind == "refused" and log_in not in self._working
            if failed.fault.reason != "forbidden" or log_in not in self._worked_before
        ]
        if refused:
            hosts = ", ".join(sorted({_host(failed.state.link) for failed in refused}))
            checks = "; ".join(sorted({_what_to_check(failed) for failed in refused}))
            recordings = number(len(refused), "recording was", "recordings were")
            raise ExpectedError(
                f"{recordings} refused at {hosts} (HTTP 401 or 403), and the same log-in could fetch none: "
                f"{checks}. What was refused stays pending and is tried again."
            )


def _what_to_check(failed: Failed) -> str:
    state, fault = failed.state, failed.fault
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

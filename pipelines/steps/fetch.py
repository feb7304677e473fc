"""Everything `pending` and due on a date: attempted, its new state recorded.

One pass over what is due, then a second request for those whose answer would be final. It never waits for a link that
is not ready: the state says when to come back. States are written every few seconds, so that a killed run loses no
more than that, and what it had already stored is found by the next run's listing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import islice
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from pipelines.archive import keys
from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import StorageRefused
from pipelines.ledger.states import RecordingState, RetryRules, Status, archived, final, reopened
from pipelines.ledger.states import due as is_due
from pipelines.ledger.store import Ledger
from pipelines.ringcx.errors import CredentialsRefused, Stopped
from pipelines.ringcx.limits import LimiterBroken
from pipelines.steps.attempt import Attempt, Done, Recorders, file_path, is_segment
from pipelines.steps.flow import Crew
from pipelines.steps.known import Known, Recordings
from pipelines.steps.links import LINK_REFUSED, AllowedLinks, judged
from pipelines.steps.verdicts import Fault, judge, may_be_final

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
    """What a run did. `changed` holds the new state of each recording it settled, `due` counts all it had to."""

    due: int = 0
    adopted: int = 0
    size: int = 0
    changed: dict[str, RecordingState] = field(default_factory=dict)

    @property
    def untried(self) -> int:
        """Recordings that were due and that the run did not come to."""
        return self.due - len(self.changed)


def refused_log_in(result: FetchResult) -> str | None:
    """The sentence a run must end with when recordings were refused and nothing proves the credentials good."""
    refused = [one for one in result.changed.values() if one.status is Status.pending and one.reason in REFUSALS]
    if not refused:
        return None
    hosts = ", ".join(sorted({_host(one.link) for one in refused}))
    checks = "; ".join(sorted({_what_to_check(one) for one in refused}))
    return (
        f"{len(refused)} recordings at {hosts} were refused (HTTP 401 or 403) and none was given to the same log-in: "
        f"{checks}. They stay pending and are asked for again."
    )


def recordings_of(ledger: Ledger, day: date, linked: Iterable[date]) -> Recordings:
    """Those that concern a run of `day`: dated `day`, and found by its pull where `linked` dates hold them.

    A call over midnight is found by one day's pull and stored under the next.
    """
    return Known(ledger.current({day, *linked})).concerning(day)


def due_of(
    states: Iterable[RecordingState], allowed: AllowedLinks, *, now: datetime, run_id: str
) -> list[RecordingState]:
    """What is to be attempted now. A link refused by a setting that has changed since is due again.

    Least tried first, then oldest: recordings that fail for ever must not stand before those never tried.
    """
    due = []
    for state in states:
        if is_due(state, now):
            due.append(state)
        elif state.status is Status.rejected and (state.reason or "").startswith(LINK_REFUSED):
            again = reopened(state, "link_allowed_now", now, run_id)
            if judged(again, allowed) is again:
                due.append(again)
    return sorted(due, key=lambda one: (one.attempts, one.date, one.recording_id))


def plan_keys(prefix: str, due: Iterable[RecordingState], known: Recordings) -> dict[str, str]:
    """A key for each due recording, by its id. Two recordings of one file name never get the same key."""
    taken = dict(known.columns("key", "recording_id"))
    taken |= {one.key: one.recording_id for one in known.others.values() if one.key is not None}
    planned = {}
    for state in sorted(due, key=lambda one: one.recording_id):
        key = keys.recording_key(prefix, state.date, state.account_id, state.layout, file_path(state))
        if taken.setdefault(key, state.recording_id) != state.recording_id:
            key = keys.apart_key(key, state.recording_id)
        planned[state.recording_id] = key
    return planned


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

    def run(self, due: Sequence[RecordingState], known: Recordings) -> FetchResult:
        """Attempt every recording of `due`, given what is `known` of the recordings around it.

        Raises:
            SourceDown: after `BREAK_AFTER` failures in a row that say nothing about the recordings.
            StorageRefused: the bucket does not take what is put.
            Exception: the first defect that an attempt met, once all others have been settled.
        """
        result = FetchResult(due=len(due))
        existing = frozenset(key for day in {one.date for one in due} for key in self._bucket.list_day(day))
        attempt = Attempt(self._bucket, self._media, existing, self._stop)
        planned = plan_keys(self._bucket.prefix, due, known)
        self._gave_before = {_log_in(one) for one in known.of_each_origin()} if due else set()
        doubtful: dict[str, Done] = {}
        with _Lines(self._ledger, self._clock) as lines:
            try:
                with closing(self._attempts(attempt, due, planned, result, lines)) as first:
                    for done in first:
                        if done.fault and may_be_final(done.state, done.fault, self._rules, self._clock()):
                            doubtful[done.state.recording_id] = done
                        else:
                            self._settle(done, result, lines, before=None)
                again = [one.state for one in doubtful.values()]
                with closing(self._attempts(attempt, again, planned, result, lines)) as second:
                    for done in second:
                        self._settle(done, result, lines, before=doubtful.pop(done.state.recording_id))
            finally:
                # Broken off before the second request: what the first one said is kept, and nothing is final.
                for done in doubtful.values():
                    self._settle(done, result, lines, before=None)
        if self._defect is not None:
            raise self._defect
        return result

    def _attempts(
        self,
        attempt: Attempt,
        due: Iterable[RecordingState],
        planned: Mapping[str, str],
        result: FetchResult,
        lines: _Lines,
    ) -> Generator[Done, None, None]:
        """Attempt each, yielding in the order in which they end. Only what is in flight is held."""
        waiting = iter(due)
        running: dict[Future[Done], RecordingState] = {}
        ended: SimpleQueue[Future[Done]] = SimpleQueue()
        crew = Crew(self._concurrency, name="recording")

        def attempted(state: RecordingState) -> Done:
            done = attempt(state, planned[state.recording_id])
            crew.ended(done.stored.size if done.stored else 0)
            return done

        try:
            while True:
                for state in islice(waiting, 2 * self._concurrency - len(running)):
                    future = crew.submit(attempted, state)
                    running[future] = state
                    future.add_done_callback(ended.put)
                if not running:
                    return
                for future in _next_of(ended):
                    done = self._outcome(future, running.pop(future))
                    self._watch(done)
                    yield done
                crew.look()
                lines.flush_in_time()
                self._progress(Progress(len(result.changed), result.due, result.size))
        except BaseException:
            # Terminated or broken off: the threads end at their next block; what they still store is adopted later.
            self._stop.set()
            raise
        finally:
            crew.shutdown(wait=False, cancel_futures=True)
            # A cancelled one never tells its waiters: they would wait their full time for it.
            wait([future for future in running if not future.cancelled()], timeout=STOP_SECONDS)

    def _outcome(self, future: Future[Done], state: RecordingState) -> Done:
        """How the attempt ended. A defect met at one recording is raised at the end, so that it stops no other."""
        try:
            return future.result()
        except (Stopped, StorageRefused, LimiterBroken):
            raise
        except CredentialsRefused as refusal:  # of the log-in: links that need none may still be had
            self._defect = self._defect or refusal
            return Done(state, fault=Fault("unavailable", "log_in_refused"))
        except Exception as defect:  # noqa: BLE001 - raised again by run()
            self._defect = self._defect or defect
            return Done(state, fault=Fault("unavailable", "defect"))

    def _watch(self, done: Done) -> None:
        self._in_a_row = self._in_a_row + 1 if self._says_nothing(done) else 0
        if done.fault is not None and self._in_a_row >= BREAK_AFTER:
            check = _what_to_check(done.state) if done.fault.reason in REFUSALS else _TROUBLESHOOTING
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
        result.changed[state.recording_id] = state
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
            self._flush()
        except BaseException as ended:
            if not isinstance(ended, Exception):  # terminated at this very moment: write them all the same, then end
                self._flush()
            raise

    def add(self, state: RecordingState) -> None:
        self._waiting.append(state)
        self.flush_in_time()

    def flush_in_time(self) -> None:
        """Append what is waiting if it is much, or has waited long."""
        if len(self._waiting) >= FLUSH_LINES or self._clock() - self._since >= FLUSH_EVERY:
            self._flush()

    def _flush(self) -> None:
        # Forgotten only once they are written: an interrupt between the two writes them twice, which changes nothing.
        self._ledger.append_states(self._waiting)
        self._waiting, self._since = [], self._clock()


def _next_of(ended: SimpleQueue[Future[Done]]) -> list[Future[Done]]:
    """The next that ends, or none after a second."""
    try:
        return [ended.get(timeout=1.0)]
    except Empty:
        return []


def _what_to_check(refused: RecordingState) -> str:
    return _CHECK_RIGHTS if is_segment(refused) else "check RINGCX_MEDIA_USERNAME and RINGCX_MEDIA_PASSWORD"


def _log_in(state: RecordingState) -> LogIn:
    return is_segment(state), _host(state.link)


def _host(link: str) -> str:
    return urlsplit(link).netloc.lower().rpartition("@")[2]

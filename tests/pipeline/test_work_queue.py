"""What is due, as lines of a table, is what one would say of each recording by itself."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.archive.keys import apart_key, recording_key
from pipelines.ledger.schema import table_of
from pipelines.ledger.states import RecordingState, Status, archived, final, reopened
from pipelines.ringcx.links import HostList
from pipelines.steps.fetch.work_queue import WorkItem, possible_keys, work_queue
from pipelines.steps.link.allowed_links import LINK_REFUSED, AllowedLinks
from pipelines.steps.link.recordings_table import RecordingsTable

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = date(2026, 11, 20)
ALLOWED = AllowedLinks(HostList(["good.example.com"]))


@st.composite
def a_state(draw: Any, number: int) -> RecordingState:
    folder, name = draw(st.sampled_from("abc")), draw(st.sampled_from(["one", "two", "a/one"]))
    recording_id = f"1/{folder}{number}/{name}.WAV"
    host = draw(st.sampled_from(["good", "bad"]))
    state = RecordingState(
        recording_id=recording_id,
        account_id="1",
        uii=str(number),
        layout="mono",
        source="global_call_type_detail",
        date=DAY + timedelta(days=draw(st.integers(0, 1))),
        status=Status.pending,
        attempts=draw(st.integers(0, 3)),
        next_attempt_at=NOW + timedelta(minutes=draw(st.integers(-2, 2))),
        run_id="before",
        written_at=NOW - timedelta(days=1),
        link=f"https://{host}.example.com/?file={recording_id}",
        found_on=DAY,
        first_seen_at=NOW - timedelta(days=1),
    )
    match draw(st.sampled_from(["pending", "refused", "missing", "archived"])):
        case "refused":
            return final(state, Status.rejected, f"{LINK_REFUSED}host_not_allowed", NOW, "before", attempted=False)
        case "missing":
            return final(state, Status.missing, "not_found", NOW, "before")
        case "archived":
            key = recording_key("", state.date, "1", "mono", recording_id.removeprefix("1/"))
            key = draw(st.sampled_from([key, apart_key(key, recording_id)]))
            proof: dict[str, Any] = {"key": key, "size": 1, "sha256": "0" * 64, "etag": "e", "version_id": None}
            return archived(state, **proof, duration_s=1.0, warnings=(), now=NOW, run_id="before")
    return state


def is_due(state: RecordingState) -> bool:
    return state.next_attempt_at is not None and state.next_attempt_at <= NOW


states = st.integers(0, 12).flatmap(lambda count: st.tuples(*(a_state(number) for number in range(count))))


@settings(deadline=None)  # it says what holds, and not how fast
@given(states)
def test_what_is_due_and_in_which_order(known: tuple[RecordingState, ...]) -> None:
    queue = work_queue(RecordingsTable.of(table_of(RecordingState, known)), ALLOWED, "", now=NOW, run_id="now")
    found = [item.state for item in queue]
    wanted = [state for state in known if is_due(state)]
    allowed_now = [state for state in known if state.status is Status.rejected and "//good." in state.link]
    wanted += [reopened(state, "link_allowed_now", NOW, "now") for state in allowed_now]
    assert found == sorted(wanted, key=lambda state: (state.attempts, state.date, state.recording_id))


@settings(deadline=None)  # it says what holds, and not how fast
@given(states)
def test_no_two_recordings_get_one_key(known: tuple[RecordingState, ...]) -> None:
    recordings = RecordingsTable.of(table_of(RecordingState, known))
    queue = work_queue(recordings, ALLOWED, "", now=NOW, run_id="now")
    # The rule, one recording after the other: the first by its id takes the plain key, unless another one holds it.
    taken = {state.key: state.recording_id for state in known if state.key}
    wanted = {}
    for state in sorted((item.state for item in queue), key=lambda state: state.recording_id):
        plain = recording_key("", state.date, "1", "mono", state.recording_id.removeprefix("1/"))
        is_ours = taken.setdefault(plain, state.recording_id) == state.recording_id
        wanted[state.recording_id] = plain if is_ours else apart_key(plain, state.recording_id)
        # Wherever an earlier run may have put it is looked at.
        key = wanted[state.recording_id]
        assert possible_keys("", WorkItem(state, key)) >= {plain, key, apart_key(plain, state.recording_id)}
    assert {item.state.recording_id: item.key for item in queue} == wanted
    assert queue.dates() == sorted({item.state.date for item in queue})

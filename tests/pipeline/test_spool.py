from __future__ import annotations

import io
import os
import random
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ringcx.errors import Stopped
from pipelines.steps.spool import IN_MEMORY, Room, Spool

MOVES = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([0, 1, 1000, 1 << 20, IN_MEMORY])),
    st.tuples(st.just("read"), st.sampled_from([-1, 0, 10, 2 << 20])),
    st.tuples(st.just("seek"), st.sampled_from([0, 5, 1 << 20])),
    st.tuples(st.just("end"), st.just(0)),
    st.tuples(st.just("anew"), st.just(0)),
)


@given(st.lists(MOVES, max_size=12))
def test_a_spool_is_a_file_wherever_it_lies(moves: list[tuple[str, int]]) -> None:
    told = io.BytesIO()
    with Spool(Room(threading.Event())) as spool:
        for move, size in moves:
            block = random.Random(size).randbytes(size) if move == "write" else b""
            answers: list[Any] = []
            for one in (told, spool):
                if move == "write":
                    one.seek(0, os.SEEK_END)
                    answers.append(one.write(block))
                elif move == "read":
                    answers.append(one.read(size))
                elif move == "seek":
                    answers.append(one.seek(min(size, len(told.getvalue()))))
                elif move == "end":
                    answers.append(one.seek(0, os.SEEK_END))
                else:
                    one.seek(0)
                    answers.append(one.truncate())
            assert answers[0] == answers[1]
        spool.seek(0)
        assert spool.read() == told.getvalue()


def test_a_small_recording_never_touches_the_disk_and_its_buffer_is_used_again() -> None:
    room = Room(threading.Event())
    with Spool(room) as spool:
        spool.write(b"x" * IN_MEMORY)
        assert spool._file is None
        first = spool._buffer
    with Spool(room) as spool:
        assert spool._buffer is first
        assert spool.read() == b""  # nothing of the one before


def test_the_disk_holds_no_more_than_its_bound_and_the_first_one_always_ends() -> None:
    stop = threading.Event()
    room = Room(stop, on_disk=8 << 20)
    first, second = Spool(room), Spool(room)
    for spool in (first, second):
        spool.write(b"x" * (IN_MEMORY + 1))
    waited = threading.Thread(target=second.write, args=(b"y" * (4 << 20),), daemon=True)
    waited.start()
    waited.join(0.3)
    assert waited.is_alive()
    first.write(b"z" * (16 << 20))  # beyond the bound: it never waits
    first.close()
    waited.join(10)
    assert not waited.is_alive()
    second.close()
    assert room._held == {}


def test_a_stop_ends_the_wait_for_room() -> None:
    stop = threading.Event()
    room = Room(stop, on_disk=IN_MEMORY)
    first, second = Spool(room), Spool(room)
    first.write(b"x" * (IN_MEMORY + 1))
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Stopped):
        second.write(b"x" * (IN_MEMORY + 1))
    first.close()
    second.close()

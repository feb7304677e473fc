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
from pipelines.steps.spool import BLOCK, Room, Spool

SOME = 3 * BLOCK

MOVES = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([0, 1, 1000, BLOCK, SOME])),
    st.tuples(st.just("fill"), st.sampled_from([1, 1000, BLOCK, SOME])),
    st.tuples(st.just("read"), st.sampled_from([-1, 0, 10, 2 << 20])),
    st.tuples(st.just("seek"), st.sampled_from([0, 5, 1 << 20])),
    st.tuples(st.just("end"), st.just(0)),
    st.tuples(st.just("anew"), st.just(0)),
)


def filled(file: Any, data: bytes) -> int:
    """Write as a body is received: into the memory that it is to lie in."""
    if isinstance(file, io.BytesIO):
        return file.write(data)
    left = memoryview(data)
    while left:
        space = file.space(len(left))
        space[:] = left[: len(space)]
        assert file.write(space) == len(space)
        left = left[len(space) :]
    return len(data)


@given(st.lists(MOVES, max_size=12))
def test_a_spool_is_a_file_wherever_it_lies(moves: list[tuple[str, int]]) -> None:
    told = io.BytesIO()
    with Spool(Room(threading.Event(), in_memory=SOME)) as spool:
        for move, size in moves:
            block = random.Random(size).randbytes(size) if move in {"write", "fill"} else b""
            answers: list[Any] = []
            for one in (told, spool):
                if move == "write":
                    one.seek(0, os.SEEK_END)
                    answers.append(one.write(block))
                elif move == "fill":
                    one.seek(0, os.SEEK_END)
                    answers.append(filled(one, block))
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
        content = told.getvalue()
        assert b"".join(map(bytes, spool.blocks(3, len(content)))) == content[3:]
        spool.seek(0)
        assert spool.read() == content


def test_memory_is_used_again_and_what_it_has_no_room_for_goes_to_disk() -> None:
    room = Room(threading.Event(), in_memory=SOME)
    with Spool(room) as first, Spool(room) as second:
        first.write(b"x" * SOME)
        assert first._file is None
        second.write(b"y")
        assert second._file is not None
        lent = {id(block.obj) for block in first._blocks}
    with Spool(room) as spool:
        assert spool.read() == b""  # nothing of the one before
        spool.write(b"z")
        assert {id(block.obj) for block in spool._blocks} <= lent


def test_the_disk_holds_no_more_than_its_bound_and_the_first_one_always_ends() -> None:
    stop = threading.Event()
    room = Room(stop, in_memory=0, on_disk=8 << 20)
    first, second = Spool(room), Spool(room)
    for spool in (first, second):
        spool.write(b"x" * (SOME + 1))
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
    room = Room(stop, in_memory=0, on_disk=SOME)
    first, second = Spool(room), Spool(room)
    first.write(b"x" * (SOME + 1))
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Stopped):
        second.write(b"x" * (SOME + 1))
    first.close()
    second.close()

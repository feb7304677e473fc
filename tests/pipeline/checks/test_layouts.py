"""The check `mono_and_stereo_agree`."""

from __future__ import annotations

from datetime import date

from sandbox.faults import Faults, Where
from tests.pipeline.checks.conftest import FEW, OLD, REPORTS, STEREO, WARN, check, fetch, figures, rows
from tests.pipeline.conftest import MakeWorld


def test_a_call_without_its_mono_and_a_leg_without_its_stereo_are_named_by_uii(
    make_world: MakeWorld,
) -> None:
    world = make_world()
    truth = world.truth(OLD)
    mono, stereo = (
        {recording["uii"] for recording in truth if recording["layout"] == layout} for layout in ("mono", "stereo")
    )
    one_call, other_call = sorted(mono & stereo)[:2]
    hidden = (f"*{one_call}-[0-9].WAV", f"*{other_call}-session-*")
    world.sandbox.set_faults(Faults(late_links=Where(paths=hidden, first=1)))
    assert world.run(OLD, select=REPORTS).success
    found = check(world, "mono_and_stereo_agree", OLD)
    assert (found.passed, found.severity) == (False, WARN)
    named = {(row["condition"], row["uii"]) for row in rows(found, "sample")}
    assert {("without_mono", one_call), ("without_stereo", other_call)} <= named
    assert world.run(OLD, select=REPORTS).success
    after, before = figures(check(world, "mono_and_stereo_agree", OLD)), figures(found)
    assert before["calls_without_mono"] == after["calls_without_mono"] + 1
    assert before["legs_without_stereo"] > after["legs_without_stereo"]
    assert before["calls_without_any_recording"] == after["calls_without_any_recording"]


def test_an_account_without_stereo_recordings_is_not_accused_of_lacking_them(
    make_world: MakeWorld, recent: list[date]
) -> None:
    world = make_world(faults=Faults(late_links=Where(paths=STEREO)), sandbox=FEW)
    fetch(world, recent[0])
    count = figures(check(world, "mono_and_stereo_agree", recent[0]))
    assert count["agent_legs"] > 0
    assert count["legs_without_stereo"] == 0

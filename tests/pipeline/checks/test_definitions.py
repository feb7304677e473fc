"""How Dagster sees the checks."""

from __future__ import annotations

import warnings
from pathlib import Path

import dagster as dg

from assets import checks
from pipelines.definitions import build_defs
from tests.pipeline.checks.conftest import ERROR, FEW, OLD, check, fetch
from tests.pipeline.conftest import MakeWorld


def test_a_check_that_cannot_judge_says_why_and_fails_no_run(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(LEDGER_URL="damaged", sandbox=FEW)
    fetch(world, OLD)
    part = next(Path("damaged", "recording_states", f"date={OLD}").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-40])
    for name, sentence in (("audio_is_true", "could not be checked"), ("every_recording_is_accounted_for", "unknown")):
        found = check(world, name, OLD)
        assert (found.passed, found.severity) == (False, ERROR)
        assert sentence in (found.description or "")
        assert part.name in (found.description or "")


def test_the_checks_are_defined_without_a_warning_and_none_of_them_blocks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = build_defs().resolve_asset_graph()
    specs = [graph.get_check_spec(key) for key in graph.asset_check_keys]
    assert specs
    assert not [spec.name for spec in specs if spec.blocking]
    assert all(spec.description for spec in specs)


def test_each_check_of_the_graph_can_be_imported_by_name() -> None:
    named = [value for value in vars(checks).values() if isinstance(value, dg.AssetChecksDefinition)]
    keys = {key for check in named for key in check.check_keys}
    assert build_defs().resolve_asset_graph().asset_check_keys <= keys

"""The job that accepts losses in the UI."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from assets.checks import evaluation
from assets.presentation import listing
from pipelines import storage
from pipelines.calendar import FIRST_DAY, local_day
from pipelines.orchestration.failures import PermanentFailure, as_permanent_failure, date_in_config
from pipelines.orchestration.resources import ArchiveStore, EnvironmentParam, LedgerStore
from pipelines.steps.check.result import LISTED
from pipelines.steps.seal.acceptance import Decision, decide
from pipelines.steps.seal.seal_day import Stores

_SHOWN = 5


class AcceptConfig(dg.Config):
    """The losses to accept, why, and by whom."""

    recording_ids: list[str] = Field(default=[], description="As listed in the check of the date.")
    date: str = Field(default="", description="YYYY-MM-DD; with `reason`, instead of ids.")
    reason: str = Field(default="", description="The reason of the date's losses, such as not_found.")
    why: str = Field(description="A ticket, without personal data. It is sealed.")
    accepted_by: str = Field(description="A role, without personal data. It is sealed.")
    revoke: bool = Field(default=False, description="Revoke acceptances instead.")


@dg.op
def decide_on_losses(
    context: dg.OpExecutionContext,
    config: AcceptConfig,
    environment: EnvironmentParam,
    ledger: LedgerStore,
    archive: ArchiveStore,
) -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
    """Accept the losses that the config names, or revoke acceptances; fail with a sentence if anything was refused."""
    with as_permanent_failure():
        days = [date_in_config("date", config.date)] if config.date else []
        if days and not FIRST_DAY <= days[0] <= local_day(environment.clock(), environment.settings.zone):
            raise PermanentFailure(f"{days[0]} is before {FIRST_DAY} or in the future: give a date with recordings.")
        decision = Decision(days=days, **config.model_dump(exclude={"date"}))
        stores = Stores(archive.open(), ledger.open(), environment.settings)
        now, run_id = environment.clock(), context.run.run_id
        decided = decide(stores, decision, now=now, run_id=run_id, signer=storage.signer(environment.settings))
    for day, found in decided.verdicts.items():
        if day >= environment.settings.archive_start_date:  # earlier ones have no partition
            yield evaluation(found, context.run.run_id)
    dates = [(str(day), str(found.verdict), found.sentence) for day, found in decided.verdicts.items()]
    metadata: dict[str, Any] = {
        "sentence": decided.sentence,
        "written": len(decided.written),
        "dates": listing(pd.DataFrame(dates, columns=["date", "verdict", "sentence"])),
        "refused": listing(pd.DataFrame({"refused": decided.refused[:LISTED]})),
    }
    if decided.refused:
        raise PermanentFailure(f"{decided.sentence} {' '.join(decided.refused[:_SHOWN])}", metadata)
    context.log.info(decided.sentence)
    yield dg.Output(None, metadata=metadata)


@dg.job
def accept_losses() -> None:
    """Accept losses that somebody has reviewed, as `ringcx-archive accept` does. The ledger and the manifests record
    who accepted them, when and why, and each date becomes complete if nothing else is wrong. `revoke` revokes
    acceptances. Give recording ids, or a date and a reason. The job fails if anything was refused; the rest is done.
    """
    decide_on_losses()

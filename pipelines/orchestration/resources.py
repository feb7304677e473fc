"""The resources: each hands a plain object to the assets, checks, ops and sensors that name it in their signature. They
open ledger and archive themselves, so that an expected error ends their step with one sentence.

No resource has configuration, so that no secret can get into a run's config, a snapshot or the UI: each run and each
tick reads the environment again, as a whole, where `EnvVar` would read each variable alone.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from typing import Any

import dagster as dg

from pipelines.archive.bucket import Bucket
from pipelines.ledger.store import Ledger
from pipelines.orchestration.environment import Environment
from pipelines.orchestration.run_requests import PARTITION_TAG
from pipelines.orchestration.source import Source

EnvironmentParam = dg.ResourceParam[Environment]
SourceParam = dg.ResourceParam[Source]


class LedgerStore(dg.ConfigurableResource[Any]):
    """The ledger at LEDGER_URL: every row and every state of a recording."""

    environment: dg.ResourceDependency[Environment]

    def open(self) -> Ledger:
        """Return the ledger, the same object for all steps of a run, so that one step may use what another read."""
        return self.environment.stores.ledger


class ArchiveStore(dg.ConfigurableResource[Any]):
    """The bucket ARCHIVE_BUCKET: recordings and manifests."""

    environment: dg.ResourceDependency[Environment]

    def open(self) -> Bucket:
        """Return the bucket, which keeps the capabilities of the server that it detects."""
        return self.environment.stores.bucket


class SourceResource(dg.ConfigurableResource[Source]):
    """RingCX: its reports and recordings, within its rate limits, and the End Call Events that it sent."""

    environment: dg.ResourceDependency[Environment]

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Source]:
        """Yield the source for a run of its date; close its connections when the run or tick ends."""
        partition = context.run.tags.get(PARTITION_TAG) if context.run else None
        day = date.fromisoformat(partition) if partition else None
        # Unlike the log of `context`, this one belongs to the step that is running when it waits.
        with closing(Source(self.environment, dg.get_dagster_logger().info, day)) as source:
            yield source


def all_resources(environment: Environment | None = None) -> dict[str, object]:
    """Return the resources by the names that assets, checks, ops and sensors use; tests give `environment`."""
    # Made for each run and tick, so that a changed setting applies to the next. Dagster warns of a
    # `ConfigurableResource` that has neither configuration nor dependencies, so this is a plain definition.
    description = "The settings, from the environment (.env.example), and the clock."
    shared = environment or dg.ResourceDefinition(lambda _: Environment(), description=description)
    return {
        "environment": shared,
        "source": SourceResource(environment=shared),
        "ledger": LedgerStore(environment=shared),
        "archive": ArchiveStore(environment=shared),
    }

"""The resources: each hands a plain object to the assets, checks, ops and sensors that name it in their signature.

No resource has configuration, so that no secret can get into a run's config, a snapshot or the UI: each run and each
tick reads the environment again, as a whole, where `EnvVar` would read each variable alone.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import dagster as dg

from pipelines.orchestration import priority
from pipelines.orchestration.environment import ArchiveStore, Environment, LedgerStore
from pipelines.orchestration.source import Source

EnvironmentParam = dg.ResourceParam[Environment]
SourceParam = dg.ResourceParam[Source]
LedgerParam = dg.ResourceParam[LedgerStore]
ArchiveParam = dg.ResourceParam[ArchiveStore]


class LedgerResource(dg.ConfigurableResource[LedgerStore]):
    """The ledger at LEDGER_URL: every row and every state of a recording."""

    environment: dg.ResourceDependency[Environment]

    def create_resource(self, context: dg.InitResourceContext) -> LedgerStore:  # noqa: ARG002 - Dagster's signature
        """Return the ledger, not yet opened."""
        return LedgerStore(self.environment)


class ArchiveResource(dg.ConfigurableResource[ArchiveStore]):
    """The bucket ARCHIVE_BUCKET: recordings and manifests."""

    environment: dg.ResourceDependency[Environment]

    def create_resource(self, context: dg.InitResourceContext) -> ArchiveStore:  # noqa: ARG002 - Dagster's signature
        """Return the archive, not yet connected."""
        return ArchiveStore(self.environment)


class SourceResource(dg.ConfigurableResource[Source]):
    """RingCX: its reports and recordings, within its rate limits, and the End Call Events that it sent."""

    environment: dg.ResourceDependency[Environment]

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[Source]:
        """Yield the source for a run of its date; close its connections when the run or tick ends."""
        day = priority.day_of(context.run.tags) if context.run else None
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
        "ledger": LedgerResource(environment=shared),
        "archive": ArchiveResource(environment=shared),
    }

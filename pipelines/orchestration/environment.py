"""The environment of a run: its settings, and the ledger and archive that they name. No Dagster here."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache

from pipelines import storage
from pipelines.archive.client import S3Options, make_s3_client
from pipelines.aws import S3Client
from pipelines.calendar import utc_now
from pipelines.settings import Settings, load


@lru_cache(maxsize=2)
def _client_of_process(max_connections: int, options: S3Options, _hour: int) -> S3Client:
    """Return one client for all ticks and runs: building it takes 0.2 s. Every hour it is new, to see changes."""
    return make_s3_client(max_connections=max_connections, options=options)


@dataclass
class Environment:
    """The settings, the clock and the S3 client of a run or a tick. `backoff_s`: the first wait between attempts.

    Settings and client are made on first use: a SettingsError or StorageRefused then ends the step that needs them,
    with its sentence, and not the start of the run, with a traceback.
    """

    clock: Callable[[], datetime] = utc_now
    s3_client: S3Client | None = None
    backoff_s: float = 1.0

    @cached_property
    def settings(self) -> Settings:
        """The settings, read once."""
        return load(Settings)

    @cached_property
    def s3(self) -> S3Client:
        """The S3 client, the same for ledger, archive and events."""
        if self.s3_client is not None:
            return self.s3_client
        connections, hour = 2 * self.settings.archive_concurrency, int(time.monotonic() // 3600)
        return _client_of_process(connections, self.settings.s3_options, hour)

    @cached_property
    def stores(self) -> storage.OpenStores:
        """The bucket, which keeps the server capabilities that it detects, and the ledger, which keeps what it read."""
        return storage.open_stores(self.settings, self.s3, self.clock)

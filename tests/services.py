"""Everything that a run touches, in one object, for tests that look past the assets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from pipelines.orchestration.environment import Environment
from pipelines.orchestration.source import Source
from pipelines.settings import Settings
from pipelines.steps.fetch.attempt import Attempt


class Services:
    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.source = Source(environment, logging.getLogger(__name__).info)
        self.bucket, self.ledger = environment.stores.bucket, environment.stores.ledger
        self.close, self.allowed = self.source.close, self.source.allowed

    @property
    def settings(self) -> Settings:
        return self.environment.settings

    @property
    def clock(self) -> Callable[[], datetime]:
        return self.environment.clock

    @property
    def attempt(self) -> Attempt:
        return self.source.attempt(self.bucket)

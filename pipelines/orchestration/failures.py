"""Failures: how an expected error ends a step, with one sentence for the person who looks at the run at night.

Every error that a run cannot fix becomes a `PermanentFailure`: the client has retried what it could, and the schedule's
look-back and the sensor retry what may work another day. Any other error is a defect and keeps its traceback.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any

import dagster as dg

from pipelines.errors import ExpectedError


class PermanentFailure(dg.Failure):
    """A failure that neither a step's retry policy nor a run retry repeats."""

    def __init__(self, description: str, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(description, metadata, allow_retries=False)


@contextmanager
def as_permanent_failure() -> Iterator[None]:
    """Raise an `ExpectedError` as a `PermanentFailure`, and a termination with a sentence; both without a traceback."""
    try:
        yield
    except ExpectedError as error:
        # `from None`: a chained cause would carry addresses and bodies of the underlying libraries into the event log.
        raise PermanentFailure(str(error)) from None
    except dg.DagsterExecutionInterruptedError:
        # As itself, so that the steps after it do not begin, and without the trace of what the step was doing.
        raise dg.DagsterExecutionInterruptedError(
            "The run was stopped. What it stored is kept, and the next run of the date continues from there."
        ) from None


def date_in_config(name: str, written: str) -> date:
    """Return the date in the field `name` of a job's config, or fail with a sentence."""
    try:
        return date.fromisoformat(written)
    except ValueError:
        raise PermanentFailure(f"{name} must be a date, written like 2026-11-18.") from None

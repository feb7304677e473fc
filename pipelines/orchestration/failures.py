"""How an error of the cores or steps ends a step: one sentence for the person who looks at the run at night.

Everything that a run cannot fix by itself becomes a `PermanentFailure`, which neither a step's retry policy nor a run
retry repeats (elsewhere a permanent error was retried 5,363 times). The client has already retried what it could; what
may work another day is retried by the schedule's look-back and by the sensor. An error without a sentence of ours is
a defect and keeps its trace.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from pipelines.errors import ExpectedError


class PermanentFailure(dg.Failure):
    """A failure that no automatic retry repeats."""

    def __init__(self, description: str, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(description, metadata, allow_retries=False)


@contextmanager
def as_permanent_failure() -> Iterator[None]:
    """Turn each `ExpectedError` into a `PermanentFailure` with its sentence, without its trace; a
    termination gets a sentence as well.
    """
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

"""The place that EVENTS_URL names, and the one sentence in which it fails. `keep.py` writes, `stored.py` reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.aws import error_code, reason

SUFFIX = ".events"


class EventsUnavailable(Exception):  # noqa: N818 - says what the matter is, like LedgerUnavailable
    """The place of the events cannot be written or read now. One sentence: what, where, what to do."""


@contextmanager
def told(verb: str, where: str) -> Iterator[None]:
    """Turn the errors of a disk or a bucket into EventsUnavailable: `cannot write /data/events: No space left …`."""
    try:
        yield
    except ClientError as error:
        raise _unavailable(verb, where, error_code(error), reason(error)) from error
    except BotoCoreError as error:
        raise _unavailable(verb, where, type(error).__name__, reason(error)) from error
    except OSError as error:
        raise _unavailable(verb, where, error.strerror or type(error).__name__) from error


def s3_place(bucket: str, prefix: str) -> str:
    """How a sentence names a prefix of a bucket."""
    return f"s3://{bucket}/{prefix}"


def _unavailable(verb: str, where: str, said: str, why: str | None = None) -> EventsUnavailable:
    return EventsUnavailable(
        f"cannot {verb} {where}: {why}."
        if why
        else f"cannot {verb} {where}: {said}; check EVENTS_URL, its rights and its space, and the AWS credentials."
    )

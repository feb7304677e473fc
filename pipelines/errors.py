"""The base class of errors that a person can act on, and one such error that every core may raise."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class ExpectedError(Exception):
    """The text is one sentence for people: what happened, where, and what to do. It needs no trace."""


class TemporaryDiskFull(ExpectedError):  # noqa: N818 - the sentence that the run ends with
    """A received body did not fit into the temporary folder, which proves nothing about the body."""

    def __init__(self, consequence: str) -> None:
        super().__init__(
            f"The disk of the temporary folder {tempfile.gettempdir()} is full, so {consequence}. Free space there, or "
            "set TMPDIR to a folder on a larger disk."
        )


@contextmanager
def on_temporary_disk(consequence: str) -> Iterator[None]:
    """Turn the error of a full disk, raised while a temporary file is written, into `TemporaryDiskFull`."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise TemporaryDiskFull(consequence) from error
        raise

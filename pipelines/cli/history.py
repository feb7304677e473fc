"""Access to Dagster's own database for a command, or a sentence that says why it cannot be used."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from dagster import DagsterInstance
from sqlalchemy.exc import DBAPIError, SQLAlchemyError


@contextmanager
def dagster_history() -> Iterator[DagsterInstance]:
    """Open the history that `DAGSTER_HOME/dagster.yaml` names; raise ClickException if the file is wrong, or if the
    database cannot be read or written, at once or inside the block.
    """
    try:
        opened = DagsterInstance.get()
    except Exception as error:  # noqa: BLE001 - of YAML, of Dagster, and of whichever database the file names
        raise _unusable(error) from None
    with opened as instance:
        try:
            yield instance
        except SQLAlchemyError as error:
            raise _unusable(error) from None


def _unusable(error: Exception) -> click.ClickException:
    file = Path(os.environ["DAGSTER_HOME"]) / "dagster.yaml"
    text = str(error)
    if unset := re.search(r'environment variable "(\w+)" which is not set', text):
        return click.ClickException(f"{unset[1]} is not set, and {file} needs it: set it as for the Dagster UI")
    if wrong := re.search(r"Error 1: (.*?)\.?\s*(\n|$|Expected)", text):
        return click.ClickException(f"{file} is wrong ({wrong[1]}): compare it with the one in the project")
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
    elif isinstance(error, DBAPIError):
        reason = str(error.orig).splitlines()[0]
    else:
        reason = type(error).__name__
    return click.ClickException(
        f"Dagster's run history, which {file} names, cannot be used ({reason}): check that file, and the disk's space "
        "and rights or the database"
    )

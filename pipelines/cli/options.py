"""Shared parts of the subcommands: options for dates and files, and errors that people can expect."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, TextIO, TypeVar

import click

from pipelines.aws import S3Client
from pipelines.calendar import FIRST_DAY, utc_now
from pipelines.errors import ExpectedError
from pipelines.settings import ENV_FILE, SettingsError

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Dependencies:
    """What a subcommand needs in addition to its settings: an S3 client (made if None), a clock and a way to wait."""

    s3: S3Client | None = None
    clock: Callable[[], datetime] = utc_now
    backoff_s: float = 1.0


class _Command(click.Command):
    """A subcommand whose expected errors end in one sentence."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            is_missing = "is not set" in str(error) and not ENV_FILE.exists()
            if is_missing:
                require_no_account_elsewhere()
            hint = f"; there is no {ENV_FILE} in {Path.cwd()}" if is_missing else ""
            raise click.ClickException(f"{error}{hint}") from None
        except ExpectedError as error:
            raise click.ClickException(str(error)) from None
        except BrokenPipeError:  # `… | head`: click ends quietly
            raise
        except OSError as error:
            if isinstance(error, FileNotFoundError) and error.errno is None and error.args:  # a sentence of ours
                raise click.ClickException(str(error)) from None
            reason, which = error.strerror or error or type(error).__name__, error.filename or "A file"
            raise click.ClickException(f"{which} could not be read or written ({reason})") from None


def subcommand(*examples: str, takes_dependencies: bool = True) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a subcommand of a function, with examples at the end of its help. The function
    takes `Dependencies` first, unless `takes_dependencies` is False.
    """
    epilog = "\b\nExample:\n" + "\n".join(f"  ringcx-archive {line}" for line in examples)
    pass_dependencies = click.make_pass_decorator(Dependencies, ensure=True)

    def decorate(function: Callable[..., Any]) -> click.Command:
        command = click.command(cls=_Command, epilog=epilog)
        return command(pass_dependencies(function) if takes_dependencies else function)

    return decorate


def read_date(text: str) -> date:
    """Parse a date on the command line."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007 - a date has no zone
    except ValueError:
        raise click.BadParameter(f"{text} is not a valid date; write it like 2026-11-18") from None


def date_option(name: str, argument: str, help_text: str, *, required: bool = False) -> Callable[[_F], _F]:
    """Add an option that takes a date."""
    return click.option(name, argument, type=read_date, metavar="YYYY-MM-DD", required=required, help=help_text)


def date_range(*, required: bool = True) -> Callable[[_F], _F]:
    """Add `--from` and `--to`, both inclusive, as `first` and `last`."""
    first = date_option("--from", "first", "The first date.", required=required)
    last = date_option("--to", "last", "The last date, included.", required=required)
    return lambda function: first(last(function))


def file_option(what: str, name: str = "--json", argument: str = "file") -> Callable[[_F], _F]:
    """Add `--json`, or the option `name`: a file to which the subcommand writes `what`."""

    def check(ctx: click.Context, param: click.Parameter, file: Path | None) -> Path | None:
        if file is not None and not file.parent.is_dir():
            raise click.BadParameter(f"there is no folder {file.parent}; create it, or name another file", ctx, param)
        return file

    kind = click.Path(dir_okay=False, writable=True, path_type=Path)
    return click.option(name, argument, type=kind, metavar="FILE", callback=check, help=f"Write {what} to this file.")


@contextmanager
def whole_file(file: Path, newline: str | None = None) -> Iterator[TextIO]:
    """Open a file that is written as a whole or not at all, and say when it was; click's own lose it on an error."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline=newline) as into:
            yield into
        partial.replace(file)
        click.echo(f"{file} was written.", err=True)
    finally:
        partial.unlink(missing_ok=True)


def write_json(file: Path | None, document: object) -> None:
    """Write the document to the file of `--json`, if one was given."""
    if file is not None:
        with whole_file(file) as into:
            into.write(f"{json.dumps(document, indent=1, default=lambda when: when.isoformat())}\n")


def one_date_or_range(day: date | None, first: date | None, last: date | None) -> tuple[date, date] | None:
    """Return the range that `--date`, or `--from` and `--to`, give; None if none of the three was given."""
    if day is not None and (first or last):
        raise click.UsageError("Give --date, or --from and --to")
    if (first is None) != (last is None):
        raise click.UsageError("Give both --from and --to")
    first, last = first or day, last or day
    return (first, last) if first and last else None


def check_range(first: date, last: date, today: date, start: date = FIRST_DAY) -> None:
    """Raise UsageError unless the range has a date, none before `start` and none in the future."""
    if first > last:
        raise click.UsageError(f"--from {first} is after --to {last}: give the earlier date first")
    if first < FIRST_DAY:
        raise click.UsageError(f"{first} is before {FIRST_DAY}: give a later date")
    if first < start:
        raise click.UsageError(
            f"{first} is before the first date of the archive, {start}: give a later date, or set ARCHIVE_START_DATE"
        )
    if last > today:
        raise click.UsageError(f"{last} is in the future: give {today} or an earlier date")


def check_dagster_home() -> None:
    """Raise ClickException unless runs go into the history that the Dagster UI shows."""
    home, here = os.environ.get("DAGSTER_HOME", ""), Path.cwd()
    file = Path(home) / "dagster.yaml"
    if not file.is_absolute() or not file.is_file():
        raise click.ClickException(
            f"DAGSTER_HOME is {home or 'not set'}: set it to the absolute path of the folder that holds dagster.yaml, "
            "as for the Dagster UI"
        )
    relative = re.search(r"^\s*base_dir:\s*[\w.]", file.read_text("utf-8"), re.MULTILINE)
    if relative and here != Path(home).resolve():
        raise click.ClickException(
            f"The working folder is {here}, but the run history is kept in {home}: change to that folder"
        )


def require_no_account_elsewhere() -> None:
    """Raise ClickException if DAGSTER_HOME is another folder that has an .env: the account is set there."""
    home = Path(os.environ.get("DAGSTER_HOME") or Path.cwd())
    if home.resolve() != Path.cwd() and (home / ENV_FILE).is_file():
        raise click.ClickException(
            f"The working folder is {Path.cwd()}, but {ENV_FILE} is in {home}: change to that folder"
        )


def stop_like_ctrl_c() -> None:
    """Raise KeyboardInterrupt on SIGTERM too, and when the terminal is closed unless under `nohup`. A command that was
    started with `&` ignores SIGINT, and so would its child processes: after this, both obey SIGINT again.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


def from_sandbox(name: str) -> ModuleType:
    """Import a module of the sandbox; raise ClickException in an installed wheel, which has no sandbox."""
    try:
        return import_module(f"sandbox.{name}")
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"No account is set, and the sandbox is not installed ({error.name} is missing): write .env, or clone the "
            "project and run `make demo` in it"
        ) from None

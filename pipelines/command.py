"""What the project's commands share: their dates and files on the command line, and their exit code.

0 and 1 are a command's own verdicts; 2: the command or a setting is wrong; 130: stopped. Not here: what a command does.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NoReturn

from pipelines.archive.errors import StorageError
from pipelines.ledger.files import LedgerError
from pipelines.settings import SettingsError


class UsageError(Exception):
    """The command line is wrong; one sentence."""


class Parser(argparse.ArgumentParser):
    """Raises a UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is."""
        raise UsageError(f"{message}; see {self.prog} --help")


def add_range(parser: argparse.ArgumentParser, written: str, *, required: bool = True) -> None:
    """Add `--from` and `--to`, which are both part of the range, and `--json FILE`, which takes what is `written`."""
    parser.add_argument("--from", dest="first", required=required, metavar="YYYY-MM-DD", help="the first date")
    parser.add_argument("--to", dest="last", required=required, metavar="YYYY-MM-DD", help="the last date, included")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"write {written}")


def range_of(
    options: argparse.Namespace, today: date, default: tuple[date, date] | None = None
) -> tuple[date, date, Path | None]:
    """Return the two dates of `add_range`, or those of `default` that are not given, and its file if there is one.

    Raises:
        UsageError: they are no dates, in the wrong order, or yet to come, or no file can be stored there.
    """
    first, last = default or (today, today)
    if options.first is not None:
        first = _date("--from", options.first)
    if options.last is not None:
        last = _date("--to", options.last)
    path: Path | None = options.json
    if first > last:
        raise UsageError(f"--from {first} is after --to {last}: give the earlier date first")
    if last > today:
        raise UsageError(f"--to {last} is in the future: give {today} or an earlier date")
    if path is not None and (not path.parent.is_dir() or path.is_dir()):
        raise UsageError("--json names no file in an existing folder: make the folder, or name another file")
    return first, last, path


def ended(work: Callable[[], int], *, stopped: str) -> int:
    """Return the exit code of `work`, whose expected errors end in one sentence. `stopped`: what an interrupt means."""
    try:
        return work()
    except (UsageError, SettingsError, StorageError, LedgerError) as error:
        code, sentence = 2, f"{str(error).rstrip('.')}."
    except OSError as error:
        code, sentence = 2, f"A file could not be written ({error.strerror or type(error).__name__})."
    except KeyboardInterrupt:
        code, sentence = 130, stopped
    sys.stderr.write(f"{sentence}\n")
    return code


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _date(option: str, text: str) -> date:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
        raise UsageError(f"{option} must be a date, written like 2026-11-18")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option} names no date of the calendar ({error}); write it like 2026-11-18") from None

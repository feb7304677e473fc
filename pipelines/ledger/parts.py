"""The ledger's parts as they are stored: names and bytes.

For proving that none was removed or altered. What the ledger means
by its lines is `store.py`'s business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pyarrow as pa

from pipelines.ledger.files import Files, LedgerDamaged
from pipelines.ledger.merged import Record, is_given

__all__ = ["KINDS", "LedgerParts", "damage", "damaged", "date_of", "is_part", "why_strange"]

KINDS = ("event_reads", "recording_states", "report_pulls", "report_rows")
"""The ledger's folders."""

_BY_REPORT = ("report_pulls", "report_rows")


class LedgerParts:
    """The parts under the same files as a `Ledger`. Safe to share between threads."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def names(self, day: date) -> dict[str, list[str]]:
        """The names of a date's parts, by kind, sorted: two listings a report, and one for each of the other kinds."""
        found = {}
        for kind in KINDS:
            reports = [f"{report}/" for report in self._files.folders(f"{kind}/")] if kind in _BY_REPORT else [""]
            found[kind] = [name for report in reports for name in self._list(f"{kind}/{report}date={day.isoformat()}/")]
        return found

    def by_day(self) -> dict[date, list[str]]:
        """Return the names of all parts by date, from one listing for each kind; `strange` files are left out."""
        found: defaultdict[date, list[str]] = defaultdict(list)
        for kind in KINDS:
            for name in self._list(f"{kind}/"):
                if day := date_of(name.split("/")[-2]):
                    found[day].append(name)
        return dict(found)

    def strange(self) -> dict[str, str]:
        """Return the files in the ledger's folders that are not its parts: name -> reason, from the same listings.

        Every other reader skips them, so that one such file stops no date; this is where they are reported.
        """
        reasons = {name: why_strange(name) for kind in KINDS for name in self._files.list(f"{kind}/")}
        # A local file's name may hold bytes that are not UTF-8, which no report could show.
        return {name.encode("utf-8", "backslashreplace").decode(): why for name, why in reasons.items() if why}

    def read(self, name: str) -> bytes:
        """A part's bytes.

        Raises:
            LedgerDamaged: it was listed and is gone.
        """
        try:
            return self._files.read(name)
        except FileNotFoundError as error:
            raise damaged(name, "it was listed and is gone") from error

    def read_if_there(self, name: str) -> bytes | None:
        """A part's bytes; None if it is not there, as one that was merged may be."""
        try:
            return self._files.read(name)
        except FileNotFoundError:
            return None

    def merged(self, name: str) -> tuple[bytes, Record]:
        """A merged part's bytes, and what they say that it replaces.

        Raises:
            LedgerDamaged: it is gone, or no whole merged part.
        """
        data = self.read(name)
        with damage(name):
            return data, Record.of(data)

    def _list(self, prefix: str) -> list[str]:
        return [name for name in self._files.list(prefix) if is_part(name)]


def date_of(folder: str) -> date | None:
    """Return the date that a folder `date=YYYY-MM-DD` names; None for any other folder.

    The first and the last year that a `date` can hold do not count: the days next to theirs could not be computed.
    """
    text = folder.removeprefix("date=")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    plain = folder == f"date={day.isoformat()}"  # `fromisoformat` also reads 20261117 and 2026-W47-2
    return day if plain and date.min.year < day.year < date.max.year else None


def why_strange(name: str) -> str | None:
    """Say why a file is not a part of the ledger; None for one that is."""
    kind, *folders, own = name.split("/")
    report = [folder for folder in folders[:-1] if folder.startswith("report=")]
    if kind not in KINDS or len(folders) != 1 + (kind in _BY_REPORT) or folders[:-1] != report:
        return "it is not directly in the folder of a date"
    if date_of(folders[-1]) is None:
        return f"its folder {folders[-1]} does not name a date"
    return None if is_given(own) else "the ledger does not give such names to its parts"


def is_part(name: str) -> bool:
    """Whether the file is one of the ledger's."""
    return why_strange(name) is None


def damaged(name: str, why: str) -> LedgerDamaged:
    """The error for a part that is not what was written."""
    return LedgerDamaged(
        f"the ledger's part {name} cannot be read ({why}); restore it from a backup or an earlier version of the "
        "object, or move it out of the ledger and run its date again."
    )


@contextmanager
def damage(name: str) -> Iterator[None]:
    """Say of which part it is that what is read is no whole one."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise damaged(name, f"not a whole Parquet file, {type(error).__name__}") from error
    except ValueError as error:
        raise damaged(name, str(error)) from error

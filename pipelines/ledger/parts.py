"""The ledger's parts: how their files are named, listed and read."""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime

import pyarrow as pa
from ulid import ULID

from pipelines.ledger.files import Files, LedgerDamaged, date_of_folder
from pipelines.ledger.schema import SCHEMAS, conform, decode, rows_schema, state_ranks

_READERS = 8  # threads that read or list in parallel

_BY_REPORT = ("report_pulls", "report_rows")
# A ULID that begins with a 7 may stand for a time after the year 9999. A part with a count and a hash in its name was
# merged by version 0.1.0: it has the ULID of the last part it replaces, and what it replaces may be there too.
_PART = re.compile(
    r"(accepted_losses|event_reads|recording_states|report_(pulls|rows)/report=[^/]+)/(?P<day>[^/]+)/"
    r"[0-6][0-9A-HJKMNP-TV-Z]{25}(-[1-9][0-9]*-[0-9a-f]{16})?\.parquet"
)


@dataclass(frozen=True, eq=False)
class LedgerParts:
    """The parts of a `Ledger` as files."""

    files: Files

    def names(self, day: date, kinds: Iterable[str] = tuple(SCHEMAS)) -> dict[str, list[str]]:
        """Return the names of a date's parts, by kind, sorted. Each folder is listed once."""
        found = {}
        for kind in kinds:
            reports = [f"{report}/" for report in self.files.folders(f"{kind}/")] if kind in _BY_REPORT else [""]
            folders = [f"{kind}/{report}date={day.isoformat()}/" for report in reports]
            found[kind] = part_names(self.files, folders)
        return found

    def strange(self) -> list[str]:
        """Return the files in the ledger's folders that are not parts, and that other readers skip."""
        names = (name for kind in SCHEMAS for name in self.files.list(f"{kind}/") if not _is_part(name))
        names = (name for name in names if not name.endswith(".partial"))  # left by a killed run of 0.1.0
        # A local file's name may hold bytes that are not UTF-8, which no report could show.
        return [name.encode("utf-8", "backslashreplace").decode() for name in names]

    def read(self, name: str) -> bytes:
        """Return a part's bytes; raise LedgerDamaged if it was listed and no longer exists."""
        try:
            return self.files.read(name)
        except FileNotFoundError:
            raise _damaged(name, "it was listed and is gone") from None


def part_names(files: Files, folders: Iterable[str]) -> list[str]:
    """Return the names of the folders' parts, sorted, folder by folder. Parts never change: same names, same lines."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="ledger") as pool:
        return [name for listed in pool.map(files.list, folders) for name in listed if _is_part(name)]


def read_parts(files: Files, names: Iterable[str], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the lines of each named part, in order; only `columns`, as far as a part has them. Raise LedgerDamaged if a
    part is gone, or is not what was written.
    """
    parts = LedgerParts(files)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="ledger") as pool:
        # Only this thread decodes: eight threads would each retain the memory that they freed, 130 MB in all.
        for name, data in zip(names, pool.map(parts.read, names), strict=True):
            yield decode_part(name, data, columns)


def decode_part(name: str, data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the lines of a part in the schema of its kind, with its path's columns, or raise LedgerDamaged."""
    kind, *folders, _ = name.split("/")
    from_path = dict(folder.split("=", 1) for folder in folders)
    with damage(name):
        table, schema = decode(data, columns), SCHEMAS[kind]
        if kind == "report_rows":
            schema = rows_schema(table.column_names)
        table = conform(table, schema, {**from_path, "date": date.fromisoformat(from_path["date"])})
        if kind in {"accepted_losses", "recording_states"}:
            state_ranks(table)  # a status from a newer version is found here, where the part's name is known
        return table


def written_at(name: str) -> datetime:
    """Return when the part of that name was written."""
    return ULID.from_str(name.rpartition("/")[2][:26]).datetime


def _is_part(name: str) -> bool:
    part = _PART.fullmatch(name)
    return part is not None and date_of_folder(part["day"]) is not None


def _damaged(name: str, why: str) -> LedgerDamaged:
    return LedgerDamaged(
        f"the ledger's part {name} cannot be read ({why}); restore it from a backup or an earlier version of the "
        "object, or move it out of the ledger and run its date again."
    )


@contextmanager
def damage(name: str) -> Iterator[None]:
    """Turn a read error into `LedgerDamaged`, which names the part."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, type(error).__name__) from error
    except ValueError as error:
        raise _damaged(name, str(error)) from error

"""`ringcx-archive access`: shows who searched for, viewed, played, downloaded or exported what."""

from dataclasses import asdict
from datetime import UTC, date, timedelta
from pathlib import Path

import click

from pipelines import storage
from pipelines.cli.options import Dependencies, check_range, date_range, file_option, subcommand, write_json
from pipelines.compliance.access_log import Access, AccessLog, DamagedAccess
from pipelines.settings import StorageSettings, load
from pipelines.wording import number

FORMAT = "ringcx-archive/access-list/1"
_DAYS = 30


@subcommand(
    "access --recording 15300002/202611/22/202611221915400151600000000029-1.WAV",
    "access --user m.weber --from 2026-11-01 --to 2026-11-22",
)
@click.option("--recording", metavar="ID", help="Only actions on this recording.")
@click.option("--call", "uii", metavar="UII", help="Only actions on this call.")
@click.option("--user", help="Only actions of this person.")
@date_range(required=False)
@file_option("the entries")
def command(
    dependencies: Dependencies,
    *,
    recording: str | None,
    uii: str | None,
    user: str | None,
    first: date | None,
    last: date | None,
    file: Path | None,
) -> int:
    """Show who searched for, viewed, played, downloaded or exported what, when and from where. Dates are UTC days.

    Without --from and --to: the last 30 days. Exit code 0: the log was shown, even if empty; 1: an entry is damaged.
    """
    today = dependencies.clock().astimezone(UTC).date()
    last = last or today
    first = first or last - timedelta(days=_DAYS)
    check_range(first, last, today)
    settings = load(StorageSettings)
    bucket, _ = storage.open_stores(settings, dependencies.s3, dependencies.clock)
    log = AccessLog(bucket)

    wanted = {"recording_id": recording, "uii": uii, "user": user}
    shown: list[Access] = []
    damaged: list[str] = []
    for entry in log.read(first, last):
        if isinstance(entry, DamagedAccess):
            damaged.append(entry.key)
            click.echo(
                f"{entry.at:%Y-%m-%d %H:%M:%S}  {entry.key} is a damaged or altered entry of the access log; restore "
                "its first version",
                err=True,
            )
        elif all(value in {None, getattr(entry, name)} for name, value in wanted.items()):
            shown.append(entry)
            click.echo(_line(entry))
    sentence = f"{number(len(shown) + len(damaged), 'entry', 'entries')} from {first} to {last}"
    sentence += f", {len(damaged)} damaged." if damaged else "."
    click.echo(sentence, err=True)
    entries = [asdict(entry) | {"at": entry.at.isoformat(timespec="milliseconds")} for entry in shown]
    write_json(file, {"format": FORMAT, "sentence": sentence, "damaged": damaged, "entries": entries})
    return 1 if damaged else 0


def _line(entry: Access) -> str:
    what = entry.recording_id or entry.uii
    seconds = "" if entry.from_s is None else f"{entry.from_s:.0f}-{entry.to_s:.0f} s"
    details = " ".join(f"{name}={value}" for name, value in entry.details.items())
    at = f"{entry.at:%Y-%m-%d %H:%M:%S}"
    parts = (at, entry.user, entry.address, entry.action, what, seconds, details, entry.why)
    return "".join(character if character.isprintable() else "�" for character in "  ".join(filter(None, parts)))

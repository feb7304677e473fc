"""`ringcx-archive export`: writes recordings, each with a proof, to one ZIP, which `evidence/package` describes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from pipelines import storage
from pipelines.cli.call_filters import filters, query_of, search_terms
from pipelines.cli.options import Dependencies, file_option, stop_like_ctrl_c, subcommand, whole_file, write_json
from pipelines.compliance.access_log import Access, AccessLog
from pipelines.evidence.package import EvidencePackage, ExportRequest
from pipelines.process_tuning import tune_allocator
from pipelines.settings import StorageSettings, load
from pipelines.steps.calls.search import CallSearch, sentence_of_lacking
from pipelines.steps.calls.table import NO_RECORDING
from pipelines.wording import number, reason_in_words

_ALL = 1 << 40
_SHOWN = 50


@subcommand(
    "export --uii 202611211915400151600000000029 --why 'case 4711' --output case-4711.zip",
    "export --from 2026-11-01 --to 2026-11-22 --agent 'Grace Hopper' --why 'audit' --output audit.zip",
)
@filters
@click.option("--why", required=True, help="The reason (a case or a ticket), for the access log and the package.")
@click.option("--by", default="", help="Who exports it, as named in the package; default: your user name.")
@file_option("the package, a new ZIP,", "--output", "output")
@file_option("what was exported and what was not")
def command(
    dependencies: Dependencies,
    /,
    *,
    why: str,
    by: str,
    output: Path | None,
    file: Path | None,
    **asked: Any,  # noqa: ANN401 - the options of `filters`
) -> int:
    """Export recordings of calls with a proof of each, as a ZIP that anybody can verify.

    Choose the calls as with `find`. The export is written to the access log first. Exit code 0: everything that was
    requested is in the package; 1: a recording is not in it, and the package says why, or nothing was found; 3: some of
    the dates were not searched, or only in part, so calls may be missing from the package.
    """
    why, by = " ".join(why.split()), " ".join(by.split())
    if output is None or not why:
        raise click.UsageError("Give --output FILE.zip and --why; neither may be empty")
    if output.exists():
        raise click.UsageError(f"The file {output} exists: name another one for --output, or remove it")
    wanted = search_terms(asked)
    if not wanted:
        raise click.UsageError("Say what to export: --uii, --recording, --from and --to, or another filter of `find`")
    stop_like_ctrl_c()
    tune_allocator()
    settings, now = load(StorageSettings), dependencies.clock()
    query = query_of(settings, now, **asked)
    bucket, _ = storage.open_stores(settings, dependencies.s3, dependencies.clock)
    verifier, search = storage.verifier(settings), CallSearch(bucket, settings)
    log = AccessLog(bucket)
    log.record(Access.of_command(now, "search", wanted, why))  # also a search that finds nothing
    files = search.files(query)
    rows = search.find(query, files, limit=_ALL).to_pylist()
    lacking = search.not_searched(query, files)
    if lacking:
        click.echo(sentence_of_lacking(lacking))
    if not rows:
        click.echo("No call was found, so nothing was exported.")
        return 3 if lacking else 1
    access = Access.of_command(now, "export", {"by": by} if by else {}, why)
    log.record_all(
        replace(access, account_id=row["account_id"], uii=row["uii"], recording_id=row["recording_id"] or "")
        for row in rows
    )
    request = ExportRequest(by=by or access.user, at=now, why=why, asked_for=wanted, not_searched=lacking)
    package = EvidencePackage(bucket, verifier, rows, request, ids=query.recordings)
    with whole_file(output) as into:
        for block in package.blocks():
            into.buffer.write(block)
    left_out = _report(package, output)
    if verifier is None:
        click.echo(
            "Note: ARCHIVE_VERIFY_KEY_FILE is not set, so no signature was checked, and no key is in the package."
        )
    write_json(file, package.listing())
    if left_out:
        return 1
    return 3 if lacking else 0


def _report(package: EvidencePackage, output: Path) -> int:
    """Show what was exported and what was not; return how many recordings were left out."""
    for lost in package.not_included[:_SHOWN]:
        why = reason_in_words(lost["reason"] or "", lost["state"])
        said = f"{lost['state']}: {why}" if why else lost["state"]
        click.echo(f"Not included: {lost['recording_id'] or 'call ' + lost['uii']} ({said})")
    if len(package.not_included) > _SHOWN:
        click.echo(f"Not included: {len(package.not_included) - _SHOWN:,} more, all of them in package.json")
    held = number(len(package.included), "recording")
    left_out: int = sum(lost["state"] != NO_RECORDING for lost in package.not_included)
    also = f"; {number(left_out, 'recording was', 'recordings were')} requested but left out" if left_out else ""
    click.echo(f"Exported {held} ({output.stat().st_size / 1e6:,.1f} MB){also}.")
    return left_out

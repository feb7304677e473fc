"""`ringcx-archive certificate`: the certificate of dates as one HTML page that needs nothing else, and as JSON.

What it says: `steps/verify/certificate`. Every text is escaped, and the page has no script.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import click

from pipelines import __version__
from pipelines.archive.proof.manifest import AcceptedLoss
from pipelines.calendar import local_day
from pipelines.cli.options import (
    Command,
    Outside,
    check_range,
    date_option,
    date_range,
    example,
    file_option,
    json_file,
    pass_outside,
    whole_file,
)
from pipelines.cli.verify import open_archive
from pipelines.settings import VerifySettings, load
from pipelines.steps.check.verdict import EXIT_CODES, Verdict, sentence_of, worst
from pipelines.steps.verify.certificate import FORMAT, certify
from pipelines.steps.verify.objects import find_strays

_COLUMNS = ("recording_id", "state", "reason", "started_at", "key", "size", "sha256")


@click.command(cls=Command, epilog=example("certificate --date 2026-11-18 --html certificate.html"))
@date_option("--date", "day", "The date, instead of --from and --to.")
@date_range(required=False)
@file_option("--html", "html", "the certificate as a page")
@json_file("the certificate as JSON")
@pass_outside
def command(
    outside: Outside, *, day: date | None, first: date | None, last: date | None, html: Path | None, file: Path | None
) -> int:
    """Certify what is archived of some dates, and say how anybody can check it.

    Reads, and changes nothing; reads no recording. Exit code 0: every date is complete; 1: one has gaps; 3: one waits
    or is unknown.
    """
    if (day is None) == (first is None and last is None):
        raise click.UsageError("Give --date, or --from and --to")
    first, last = first or day, last or day
    if first is None or last is None:
        raise click.UsageError("Give both --from and --to")
    if html is None and file is None:
        raise click.UsageError("Give --html FILE, --json FILE or both")
    settings, now = load(VerifySettings), outside.clock()
    check_range(first, last, local_day(now, settings.zone))
    archive = open_archive(settings, outside)
    dates = []
    for certificate in certify(archive, first, last):
        dates.append(certificate)
        click.echo(f"{certificate['date']}  {certificate['verdict']}: {certificate['sentence']}")
    strays = [stray.sentence for stray in find_strays(archive.bucket, (settings.ledger, settings.events_url))]
    for sentence in strays:
        click.echo(sentence)
    verdicts = [Verdict(of_date["verdict"]) for of_date in dates]
    counted = [of_date["counts"] for of_date in dates if of_date["counts"]]
    document = {
        "format": FORMAT,
        "bucket": archive.bucket.name,
        "prefix": archive.bucket.prefix,
        "from": str(first),
        "to": str(last),
        "issued_at": now.isoformat(timespec="seconds"),
        "verdict": worst(verdicts),
        "sentence": sentence_of(verdicts, sum(counts["accepted_losses"] > 0 for counts in counted)),
        "strays": strays,
        "dates": dates,
    }
    if html is not None:
        with whole_file(html) as into:
            # A forged manifest may hold lone surrogates, which no UTF-8 has.
            into.write(page(document).encode("utf-8", "backslashreplace").decode())
    if file is not None:
        with whole_file(file) as into:
            into.write(f"{json.dumps(document, indent=1)}\n")
    return EXIT_CODES[Verdict.gaps if strays else worst(verdicts)]


def page(document: Mapping[str, Any]) -> str:
    """Return the certificate as HTML."""
    first, last, dates = document["from"], document["to"], document["dates"]
    overview = ""
    if len(dates) > 1:
        rows = [(of_date["date"], of_date["verdict"], of_date["sentence"]) for of_date in dates]
        overview = f"<h2>Overview</h2><p>{escape(document['sentence'])}</p>{_table(('date', 'verdict', ''), rows)}"
    template = Template(files("pipelines.cli").joinpath("certificate.html").read_text("utf-8"))
    if document["strays"]:
        strays = _table(("",), [(sentence,) for sentence in document["strays"]])
        overview += f"<h2>What is in the bucket and belongs to no date</h2>{strays}"
    return template.substitute(
        title=escape(f"Certificate of {first}" if first == last else f"Certificate of {first} to {last}"),
        bucket=escape(document["bucket"]),
        prefix=escape(document["prefix"] or "none"),
        issued_at=escape(document["issued_at"]),
        version=escape(__version__),
        overview=overview,
        sections="\n".join(map(_section, dates)),
    )


def _section(of_date: Mapping[str, Any]) -> str:
    verdict, manifest, counts = of_date["verdict"], of_date["manifest"], of_date["counts"]
    parts = [
        f"<h2>{escape(of_date['date'])}</h2>",
        f'<p class="verdict {escape(verdict)}"><b>{escape(verdict)}</b>: {escape(of_date["sentence"])}</p>',
    ]
    if manifest is None:
        parts.append("<p>There is no manifest that can be relied on, so no recording can be certified.</p>")
    else:
        before = manifest["previous_day"]
        facts = {
            "recordings": f"{counts['found']:,} sealed, {counts['held']:,} held, {counts['pending']:,} pending, "
            f"{counts['lost']:,} not archived; {counts['bytes']:,} bytes",
            "manifest": f"{manifest['key']}, number {manifest['number']}, sealed at {manifest['sealed_at']}",
            "SHA-256 of the manifest": manifest["sha256"],
            "SHA-256 of the manifest before it": manifest["previous_sha256"] or "none: it is the first",
            "manifest of the day before": json.dumps(before) if before else "there was none",
            "signature": f"{manifest['signature']['state'].replace('_', ' ')} ({manifest['signature']['key']})",
        }
        parts.append(_table(("", ""), facts.items()))
    if of_date["discrepancies"]:
        rows = [(one["kind"], one["subject"], one["sentence"]) for one in of_date["discrepancies"]]
        parts += ["<h3>Discrepancies</h3>", _table(("kind", "subject", "what is wrong"), rows)]
    if of_date["recordings"]:
        rows_of = [[recording[name] for name in _COLUMNS] for recording in of_date["recordings"]]
        note = "<p>Those stored under this date; a recording that began after midnight is stored under the next.</p>"
        parts += ["<h3>Recordings</h3>", note, _table(_COLUMNS, rows_of, kind="recordings")]
    if of_date["accepted_losses"]:
        rows_of = [[loss[name] for name in AcceptedLoss._fields] for loss in of_date["accepted_losses"]]
        note = "<p>These losses were reviewed and accepted.</p>"
        parts += ["<h3>Accepted losses</h3>", note, _table(AcceptedLoss._fields, rows_of)]
    if of_date["commands"]:
        commands = escape("\n".join(of_date["commands"]))
        how = (
            "<p>With <code>aws</code>, <code>sha256sum</code> and <code>openssl</code> (3.0 or later) alone. "
            "<code>public.pem</code> is the public key of the archive, which you should have from elsewhere. The last "
            "two lines check one recording; every other is checked in the same way.</p>"
        )
        parts += ["<h3>Check it yourself</h3>", how, f"<pre>{commands}</pre>"]
    return f"<section>{''.join(parts)}</section>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, kind: str = "facts") -> str:
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in columns)
    texts = (("" if cell is None else escape(str(cell)) for cell in row) for row in rows)
    body = "".join(f"<tr>{''.join(f'<td class=data>{text}</td>' for text in row)}</tr>" for row in texts)
    return f"<div class=scroll><table class={kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"

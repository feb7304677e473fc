"""`ringcx-archive certificate`: the certificate of some dates as one self-contained HTML page and as JSON."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import click
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines import __version__
from pipelines.calendar import local_day
from pipelines.cli.options import (
    Dependencies,
    check_range,
    date_option,
    date_range,
    file_option,
    one_date_or_range,
    subcommand,
    whole_file,
    write_json,
)
from pipelines.ledger.states import Status
from pipelines.settings import VerifySettings, load
from pipelines.steps.check.verdict import EXIT_CODES, Verdict, sentence_of, worst
from pipelines.steps.verify.certificate import FORMAT, certify
from pipelines.steps.verify.days import open_archive
from pipelines.steps.verify.objects import find_strays
from pipelines.wording import reason_in_words


@subcommand("certificate --date 2026-11-18 --html certificate.html")
@date_option("--date", "day", "The date, instead of --from and --to.")
@date_range(required=False)
@file_option("the certificate as a page", "--html", "html")
@file_option("the certificate as JSON")
def command(
    dependencies: Dependencies, *, day: date | None, first: date | None, last: date | None,
    html: Path | None, file: Path | None,
) -> int:  # fmt: skip
    """Certify which recordings of some dates are archived, and show how anybody can check it.

    Reads, and changes nothing. Exit code 0: every date is complete; 1: one has gaps, or an object in the bucket belongs
    to no date; 3: one is waiting or unknown.
    """
    given = one_date_or_range(day, first, last)
    if given is None:
        raise click.UsageError("Give --date, or --from and --to")
    if html is None and file is None:
        raise click.UsageError("Give --html FILE, --json FILE or both")
    settings, now = load(VerifySettings), dependencies.clock()
    check_range(*given, local_day(now, settings.zone))
    archive = open_archive(settings, dependencies.s3, dependencies.clock)
    dates = []
    for certificate in certify(archive, *given):
        dates.append(certificate)
        click.echo(f"{certificate['date']}  {certificate['verdict']}: {certificate['sentence']}")
    strays = [stray.sentence for stray in find_strays(archive.bucket, settings)]
    for sentence in strays:
        click.echo(sentence)
    verdicts = [Verdict(of_date["verdict"]) for of_date in dates]
    counted = [of_date["counts"] for of_date in dates if of_date["counts"]]
    document = {
        "format": FORMAT,
        "bucket": archive.bucket.name,
        "prefix": archive.bucket.prefix,
        "from": str(given[0]),
        "to": str(given[1]),
        "issued_at": now.isoformat(timespec="seconds"),
        "verdict": worst(verdicts),
        "sentence": sentence_of(verdicts, sum(counts["accepted_losses"] > 0 for counts in counted)),
        "strays": strays,
        "dates": dates,
    }
    if html is not None:
        with whole_file(html) as into:
            loader = PackageLoader("pipelines.cli", "")
            pages = Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=StrictUndefined)
            pages.filters["not_archived"] = _not_archived
            text = pages.get_template("certificate.html").render(document, version=__version__)
            # A forged manifest may hold lone surrogates, which no UTF-8 has.
            into.write(text.encode("utf-8", "backslashreplace").decode())
    write_json(file, document)
    return EXIT_CODES[Verdict.gaps if strays else worst(verdicts)]


def _not_archived(recordings: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str, int]]:
    """Return state, reason, its meaning and the number of recordings, for each state and reason but `archived`."""
    lacking = Counter((row["state"], row["reason"] or "") for row in recordings if row["state"] != Status.archived)
    return [
        (state, reason, reason_in_words(reason, state) or "not tried yet", count)
        for (state, reason), count in sorted(lacking.items())
    ]

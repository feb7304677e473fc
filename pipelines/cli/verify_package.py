"""`ringcx-archive verify-package`: verifies an exported package, as the verify.py inside it does."""

from pathlib import Path

import click

from pipelines.cli.options import file_option, subcommand, write_json
from pipelines.evidence.verify import PackageFault, read_keys, verify
from pipelines.settings import Calendar, LocalPath, load

FORMAT = "ringcx-archive/package-verification/1"


class _Keys(Calendar):
    archive_verify_key_file: LocalPath | None = None


@subcommand("verify-package case-4711.zip", "verify-package case-4711.zip --key public.pem", takes_dependencies=False)
@click.argument("package", type=click.Path(exists=True, path_type=Path), metavar="FILE")
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The archive's public key; default: ARCHIVE_VERIFY_KEY_FILE, if it is set.",
)
@file_option("what was found")
def command(package: Path, *, key: Path | None, file: Path | None) -> int:
    """Verify an exported package: a ZIP, or the folder into which it was unpacked.

    Needs no access to the archive. With the archive's key, a package that was signed with another key is refused.
    Exit code 0: every recording in the package is proved; 1: something is not as it was sealed, or a recording that
    was requested and should be in the archive is not in the package; 3: nothing is wrong, but no signature that was
    checked covers some of the recordings, or the package holds none.
    """
    key = key or load(_Keys).archive_verify_key_file
    try:
        trusted = read_keys(key.read_text("utf-8")) if key else None
    except (PackageFault, ValueError):
        raise click.ClickException(
            f"{key} contains something other than Ed25519 public keys in PEM: give the archive's public key"
        ) from None
    report = verify(package, trusted)
    for line in report.lines():
        click.echo(line)
    if trusted is None and report.keys:
        click.echo(
            "Compare the fingerprint with the one that the archive's owner gave you, or give the archive's key "
            "with --key."
        )
    names = ("proved", "unsigned", "left_out", "problems", "notes")
    found = {"sentence": report.lines()[-1], **{name: getattr(report, name) for name in names}}
    write_json(file, {"format": FORMAT, **found, "keys": sorted(report.keys)})
    return report.exit_code

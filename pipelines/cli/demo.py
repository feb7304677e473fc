"""`ringcx-archive demo`: archives two dates of a sandbox RingCX into a local S3."""

from pipelines.cli.options import from_sandbox, subcommand


@subcommand("demo", "ui", takes_dependencies=False)
def command() -> int:
    """Archive two dates of a sandbox RingCX into a local S3, and show the result. Needs no account.

    Only in a checkout of the project. `ringcx-archive ui` shows the result. Exit code 0: both runs succeeded.
    """
    return int(from_sandbox("demo").main())

"""`ringcx-archive`: run a subcommand and return its exit code; after an error print one sentence and return 2 or 130.

A subcommand's module is imported only when it is called, so that help and the receiver need no pandas or Dagster.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from pipelines import __version__
from pipelines.wording import capitalized

_COMMANDS: Mapping[str, str] = {
    "demo": "Archive two dates of a sandbox RingCX into a local S3.",
    "ui": "Run the Dagster UI and daemon, for the account in .env or for the demo.",
    "run": "Archive dates now, one after another.",
    "find": "Find calls by number, agent, queue, text or UII.",
    "export": "Export recordings as one ZIP, with a proof of each.",
    "verify-package": "Verify a ZIP that `export` wrote.",
    "status": "Show which dates are complete, and what the others lack.",
    "metrics": "Write the results of `status` as Prometheus metrics.",
    "verify": "Prove that the archive of some dates is as it was sealed.",
    "certificate": "Certify which recordings of some dates are archived, as a page and as JSON.",
    "accept": "Accept losses that somebody has reviewed, or revoke acceptances.",
    "plan": "Show what a backfill of some dates would take.",
    "check": "Check everything that a run needs: log-in, rights, S3, ledger, limits.",
    "receiver": "Receive End Call Events from RingCX.",
    "browse": "Serve the page on which people find and hear calls.",
    "access": "Show who searched for, viewed, played, downloaded or exported what.",
}
_EXTRAS = frozenset({"receiver", "browse"})


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            if not ctx.resilient_parsing and (similar := get_close_matches(cmd_name, _COMMANDS, 1)):
                ctx.fail(f"No such command '{cmd_name}'; did you mean {similar[0]}?")
            return None
        try:
            command: click.Command = import_module(f"pipelines.cli.{cmd_name.replace('-', '_')}").command
        except ModuleNotFoundError as error:
            message = f"`ringcx-archive {cmd_name}` needs the package {error.name}, which is not installed"
            if cmd_name in _EXTRAS:
                message += f": pip install '.[{cmd_name}]' in the project folder"
            raise click.ClickException(message) from None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name, help=text) for name, text in _COMMANDS.items() if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(
    cls=_Commands,
    no_args_is_help=False,
    epilog="Exit codes: 0 success; 1 the answer is no (a gap, a discrepancy, a failure); 2 the command or a setting is "
    "wrong; 3 the answer is not known yet (a date is waiting or unknown); 130 stopped with Ctrl-C. Settings come from "
    "the environment and from .env in the working folder.",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def commands() -> None:
    """Archive RingCX call recordings in your own S3 bucket, and prove that none is missing."""


def main(arguments: Sequence[str] | None = None, obj: object = None) -> int:
    """Run the command and return its exit code. `obj`: an `options.Dependencies`, for tests."""
    os.umask(0o077)  # whatever a command writes names recordings, calls or accounts
    try:
        return int(commands.main(arguments, "ringcx-archive", standalone_mode=False, obj=obj) or 0)
    except click.Abort:
        code, sentence = 130, "Stopped early: anything not shown above was not done"
    except click.ClickException as error:
        code, sentence = 2, error.format_message().rstrip(".")
        if isinstance(error, click.UsageError) and error.ctx is not None:
            sentence += f" (see {error.ctx.command_path} --help)"
    click.echo(f"{capitalized(sentence)}.", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())

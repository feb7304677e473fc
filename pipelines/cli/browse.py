"""`ringcx-archive browse`: serves the page on which people find and hear calls, in the foreground, until SIGTERM."""

import logging
import sys

import click
from argon2 import PasswordHasher

from pipelines.browser.server import run
from pipelines.cli.options import subcommand
from pipelines.settings import BrowseSettings, load


@subcommand("browse", "browse --hash-password", takes_outside=False)
@click.option("--hash-password", is_flag=True, help="Ask for a password, print its hash for the access file, and exit.")
def command(*, hash_password: bool) -> None:
    """Serve the page on which people find and hear calls, in the foreground, until SIGTERM or Ctrl-C.

    BROWSE_AUTH says who may sign in; without it the page does not start. More: docs/browse.md.
    """
    if hash_password:
        terminal = sys.stdin.isatty()
        password = click.prompt("Password", hide_input=True, confirmation_prompt=terminal, err=True)
        click.echo(PasswordHasher().hash(password))
        return
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pipelines.browser").setLevel(logging.INFO)
    run(load(BrowseSettings))

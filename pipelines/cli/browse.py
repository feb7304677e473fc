"""`ringcx-archive browse`: serves the page on which people find and hear calls, in the foreground, until SIGTERM."""

import asyncio
import logging
import sys

import click
from argon2 import PasswordHasher

from pipelines import storage
from pipelines.browser.app import Browser
from pipelines.calendar import utc_now
from pipelines.cli.options import subcommand
from pipelines.process_tuning import tune_allocator
from pipelines.serving import listen, serve
from pipelines.settings import BrowseSettings, load

_CONNECTIONS = 64
_MOST_REQUESTS = 200
_GRACE_SECONDS = 10


@subcommand("browse", "browse --hash-password", takes_dependencies=False)
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
    log = logging.getLogger("pipelines.browser")
    log.setLevel(logging.INFO)
    settings = load(BrowseSettings)
    tune_allocator()
    bucket, _ = storage.open_stores(settings, None, utc_now, max_connections=_CONNECTIONS)
    app = Browser(bucket, settings, verifier=storage.verifier(settings)).app()
    listener = listen(settings.browse_host, settings.browse_port, "BROWSE_HOST and BROWSE_PORT")
    if settings.browse_auth == "open":
        log.warning("BROWSE_AUTH=open: anyone who can reach %s can listen to every call.", settings.browse_origin)
    log.info("Find and hear calls: %s", settings.browse_origin)
    asyncio.run(serve(app, listener, limit_concurrency=_MOST_REQUESTS, timeout_graceful_shutdown=_GRACE_SECONDS))

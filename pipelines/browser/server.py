"""Run the page with uvicorn, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from pipelines import storage
from pipelines.archive.bucket import Bucket
from pipelines.archive.client import make_s3_client
from pipelines.browser.app import Browser
from pipelines.browser.sign_in import way_to_sign_in
from pipelines.memory import tune_allocator
from pipelines.serving import listen, serve
from pipelines.settings import BrowseSettings
from pipelines.steps.calls.search import CallSearch

if TYPE_CHECKING:
    from starlette.applications import Starlette

log = logging.getLogger("pipelines.browser")

_CONNECTIONS = 64
_MOST_REQUESTS = 200
_GRACE_SECONDS = 10


def run(settings: BrowseSettings) -> None:
    """Serve the page.

    Raises:
        SettingsError: the address cannot be listened on, or the access file cannot be used.
        StorageError: a key that signatures are verified with cannot be read.
    """
    tune_allocator()
    app = make_app(settings)
    if settings.browse_auth == "open":
        log.warning("BROWSE_AUTH=open: everybody who can reach %s hears every call.", settings.browse_origin)
    asyncio.run(_serve(app, settings))


def make_app(settings: BrowseSettings) -> Starlette:
    """Return the application for these settings; raises as `run`."""
    client = make_s3_client(max_connections=_CONNECTIONS, options=settings.s3_options)
    bucket = Bucket(client, settings.archive_bucket, settings.archive_prefix)
    return Browser(
        bucket,
        CallSearch(bucket, settings),
        way_to_sign_in(settings),
        settings,
        verifier=storage.verifier(settings),
    ).app()


async def _serve(app: Starlette, settings: BrowseSettings) -> None:
    listener = listen(settings.browse_host, settings.browse_port, "BROWSE_HOST and BROWSE_PORT")
    log.info("Find and hear calls: %s", settings.browse_origin)
    await serve(app, listener, limit_concurrency=_MOST_REQUESTS, timeout_graceful_shutdown=_GRACE_SECONDS)

"""The page's server: uvicorn, until SIGTERM or SIGINT."""

import asyncio
import logging

from pipelines import storage
from pipelines.browser.app import Browser
from pipelines.calendar import utc_now
from pipelines.memory import tune_allocator
from pipelines.serving import listen, serve
from pipelines.settings import BrowseSettings

_CONNECTIONS = 64
_MOST_REQUESTS = 200
_GRACE_SECONDS = 10
_log = logging.getLogger("pipelines.browser")


def run(settings: BrowseSettings) -> None:
    """Serve the page until SIGTERM or SIGINT.

    Raises:
        SettingsError: the address cannot be bound, or the access file cannot be used.
        StorageError: a key that verifies signatures cannot be read.
    """
    tune_allocator()
    bucket, _ = storage.open_stores(settings, None, utc_now, max_connections=_CONNECTIONS)
    app = Browser(bucket, settings, verifier=storage.verifier(settings)).app()
    listener = listen(settings.browse_host, settings.browse_port, "BROWSE_HOST and BROWSE_PORT")
    if settings.browse_auth == "open":
        _log.warning("BROWSE_AUTH=open: everybody who can reach %s hears every call.", settings.browse_origin)
    _log.info("Find and hear calls: %s", settings.browse_origin)
    asyncio.run(serve(app, listener, limit_concurrency=_MOST_REQUESTS, timeout_graceful_shutdown=_GRACE_SECONDS))

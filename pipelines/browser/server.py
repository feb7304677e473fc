"""Run the page with uvicorn, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from pipelines import storage
from pipelines.archive.bucket import Bucket
from pipelines.archive.client import make_s3_client
from pipelines.browser.app import Browser
from pipelines.browser.sign_in import way_to_sign_in
from pipelines.settings import BrowseSettings, SettingsError
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


class _Server(uvicorn.Server):
    """Returns after a signal; uvicorn's own would raise the same signal once more and end the process by it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the loop."""
        yield


async def _serve(app: Starlette, settings: BrowseSettings) -> None:
    listener = _listen(settings.browse_host, settings.browse_port)
    server = _Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            ws="none",
            proxy_headers=False,
            server_header=False,
            access_log=False,  # the access log of ours says more, and is kept where it cannot be altered
            log_config=None,
            log_level="error",
            limit_concurrency=_MOST_REQUESTS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )
    log.info("Find and hear calls: %s", settings.browse_origin)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.handle_exit, number, None)
    await server.serve(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on BROWSE_HOST and BROWSE_PORT ({host}:{port}): {error.strerror}; choose others"
        ) from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener

"""Servers with uvicorn that run until SIGTERM or SIGINT, and a limit on requests: for the receiver and the page."""

import asyncio
import signal
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette

from pipelines.settings import SettingsError

_NAMES = 10_000
_BACKLOG = 1024


class RateLimit:
    """A token bucket for each name: `per_minute` turns, in bursts of at most `most` (default: a minute's turns)."""

    def __init__(self, per_minute: int, most: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_minute / 60
        self._most = float(most or per_minute)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, name: str) -> int:
        """Take a turn and return 0, or return the whole seconds until the next turn."""
        with self._lock:
            now = self._clock()
            left, at = self._left.pop(name, (self._most, now))
            left = min(self._most, left + (now - at) * self._per_second)
            wait = 0 if left >= 1 else int((1 - left) / self._per_second) + 1
            self._left[name] = (left if wait else left - 1, now)
            if len(self._left) > _NAMES:
                self._left.popitem(last=False)
            return wait


class _Server(uvicorn.Server):
    """A server that returns after a signal; uvicorn's own raises the signal again and ends the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the event loop."""
        yield


async def serve(app: Starlette, listener: socket.socket, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
    """Serve `app` on `listener`; finish running requests when a signal comes. `options`: of `uvicorn.Config`."""
    server = _Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            ws="none",
            proxy_headers=False,
            server_header=False,
            access_log=False,  # it shows query strings, and those hold telephone numbers
            log_config=None,
            log_level="error",
            **options,
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, server.handle_exit, number, None)
    await server.serve(sockets=[listener])


def listen(host: str, port: int, variables: str) -> socket.socket:
    """Return a listening socket; raise SettingsError, with the `variables` that name its address, if that fails."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(f"cannot listen on {variables} ({host}:{port}): {error.strerror}; choose others") from None
    # asyncio does so only for sockets that name their protocol; without it every small answer takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener

"""moto_server, one request at a time: it looks and stores in two steps, so that of two conditional puts both could win.

A script: it takes the arguments of `python -m moto.server`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from moto import server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

_LOCK = Lock()


class OneAtATime(DomainDispatcherApplication):
    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with _LOCK:
            return list(super().__call__(environ, start_response))


if __name__ == "__main__":
    server.DomainDispatcherApplication = OneAtATime
    server.main()

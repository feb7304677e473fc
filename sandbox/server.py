"""Runs a sandbox, in a thread of this process or in a process of its own."""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import uvicorn

from sandbox.app import make_app
from sandbox.config import SandboxConfig
from sandbox.faults import Faults
from sandbox.wire import TransportProtocol

_START_S = 120.0  # a busy machine; a server that ends is noticed at once


def _make_server(config: SandboxConfig) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            make_app(config),
            loop="asyncio",
            http=TransportProtocol,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            log_level="critical",  # a connection cut on purpose is not an error worth a line
            timeout_graceful_shutdown=2,
        )
    )


class RunningSandbox:
    """A sandbox for the length of a `with` block.

    Args:
        config: What it holds and how it behaves.
        port: 0 takes a free one.
        address: Where to listen.
        own_process: In a process of its own, so that it takes no time from this one's interpreter lock. The clocks of
            `config` are then the real ones.
    """

    def __init__(
        self,
        config: SandboxConfig | None = None,
        *,
        port: int = 0,
        address: str = "127.0.0.1",
        own_process: bool = False,
    ) -> None:
        self.config = config or SandboxConfig()
        self.port = port
        self._address = address
        self._own_process = own_process
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._client: httpx.Client | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        """`127.0.0.1:<port>`, as the list of allowed media hosts wants it."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        if self._own_process:
            self._start_process()
        else:
            self._start_thread()
        # It asks by plain HTTP; loading the certificates would take longer than the rest of the start.
        self._client = httpx.Client(trust_env=False, timeout=120, verify=False)  # noqa: S501 - as above
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_START_S)
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_START_S)
            if self._process.stdout is not None:
                self._process.stdout.close()

    def truth(self, date: str, *, account: str | None = None, timezone: str = "UTC") -> list[dict[str, Any]]:
        """The recordings that exist by now and start on that local date, as `GET /sandbox/truth` lists them."""
        query = {"date": date, "timezone": timezone} | ({"account": account} if account else {})
        recordings: list[dict[str, Any]] = self._admin("GET", "truth", params=query).json()["recordings"]
        return recordings

    def counters(self) -> dict[str, Any]:
        """What was seen since the start or the last reset."""
        counted: dict[str, Any] = self._admin("GET", "counters").json()
        return counted

    def reset(self) -> None:
        """Counters to nothing, knobs and limits as at the start."""
        self._admin("POST", "reset")

    def expire_tokens(self) -> None:
        """Every access token is expired at once."""
        self._admin("POST", "expire-tokens")

    def set_faults(self, faults: Faults | Mapping[str, Any]) -> None:
        """These knobs and no others."""
        self._admin("PUT", "faults", json=faults.to_json() if isinstance(faults, Faults) else dict(faults))

    def set_limits(self, **limits: str) -> None:
        """`reports`, `exchange`, `media`, `metadata`, `download`, each as in `2/60` or `none`."""
        self._admin("PUT", "limits", json=limits)

    def environment(self, *, login: str = "jwt") -> dict[str, str]:
        """Variables that point an archiver here; `login` is `jwt`, `password` or `token`."""
        own = self.config.credentials
        ways = {
            "jwt": {
                "RINGCENTRAL_CLIENT_ID": own.client_id,
                "RINGCENTRAL_CLIENT_SECRET": own.client_secret,
                "RINGCENTRAL_JWT": own.jwt,
            },
            "password": {"RINGCX_USERNAME": own.username, "RINGCX_PASSWORD": own.password},
            "token": {"RINGCX_API_TOKEN": own.api_token},
        }
        variables = {
            "RINGCX_ACCOUNT_IDS": ",".join(self.config.accounts),
            "RINGCX_API_URL": f"{self.url}/voice/api",
            "RINGCX_AUTH_URL": self.url,
            "RINGCENTRAL_URL": self.url,
            "RINGCX_MEDIA_HOSTS": self.host,
            "RINGCX_RC_ACCOUNT_ID": self.config.rc_account_id,
            **ways[login],
        }
        if own.media_username:
            variables |= {"RINGCX_MEDIA_USERNAME": own.media_username, "RINGCX_MEDIA_PASSWORD": own.media_password}
        return variables

    def _admin(self, method: str, name: str, **arguments: Any) -> httpx.Response:  # noqa: ANN401  # httpx's own
        if self._client is None:
            raise RuntimeError("The sandbox runs, and can be asked, only within its `with` block.")
        answer = self._client.request(method, f"{self.url}/sandbox/{name}", **arguments)
        if answer.status_code == 400:
            raise ValueError(answer.json()["error"])
        return answer.raise_for_status()

    def _start_thread(self) -> None:
        listener = socket.create_server((self._address, self.port), backlog=1024)
        # asyncio does so only for sockets that name their protocol; without it every small answer takes 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = listener.getsockname()[1]
        server = _make_server(self.config)

        def run() -> None:
            asyncio.run(server.serve(sockets=[listener]))
            listener.close()

        self._server, self._thread = server, threading.Thread(target=run, name="sandbox", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError(f"The sandbox did not start on {self.url}; see the error above.")
            time.sleep(0.005)

    def _start_process(self) -> None:
        command = [
            sys.executable,
            "-m",
            "sandbox",
            "--port",
            str(self.port),
            "--no-s3",
            "--with-parent",
            "--config",
            "-",
        ]
        root = Path(__file__).parents[1]  # importable from there, installed or not
        # In a group of its own: Ctrl-C is for the program that uses it, which still needs it to end well.
        process = subprocess.Popen(  # noqa: S603
            command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
        )
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("The sandbox's process has no pipes.")
        process.stdin.write(json.dumps(self.config.to_json()).encode())
        process.stdin.close()
        with selectors.DefaultSelector() as selector:  # select() knows no file descriptor above 1,023
            selector.register(process.stdout, selectors.EVENT_READ)
            ready = selector.select(_START_S)
        line = process.stdout.readline().decode() if ready else ""
        if "http://" not in line:
            process.terminate()
            raise RuntimeError("The sandbox's process did not start; run `python -m sandbox` to see why.")
        self.port = int(line.rsplit(":", 1)[1])
        self._process = process

"""A local S3 whose listing of recordings takes what Amazon's does: a page of 1000 keys after 80 ms for every client.

`rclone serve s3` reads the whole folder for every page: 1.6 s of a date of 100,000 recordings. All other requests go
through to it.
"""

import http.client
import time
from bisect import bisect_right
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

PAGE = 1000
PAGE_S = 0.08
_HOP = frozenset({"connection", "transfer-encoding", "content-length", "server", "date"})


class Front(ThreadingHTTPServer):
    """Serves from its making on; `pages` counts the pages that were asked for.

    Args:
        upstream: address of the S3 behind it.
        keys: what a listing of recordings has, sorted; each object of `size` bytes.
    """

    daemon_threads = True

    def __init__(self, upstream: str, keys: Sequence[str], size: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream)
        self.keys = keys
        self.size = size
        self.pages = 0
        self.url = f"http://127.0.0.1:{self.server_port}"
        Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Front

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def _answer(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        if "list-type" in query and query.get("prefix", "").startswith("recordings/"):
            time.sleep(PAGE_S)
            self.server.pages += 1
            self._say(200, {"content-type": "application/xml"}, self._page(query))
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        upstream = http.client.HTTPConnection(self.server.upstream.hostname or "", self.server.upstream.port)
        upstream.request(self.command, self.path, body=body, headers=dict(self.headers.items()))
        answer = upstream.getresponse()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
        data = answer.read()
        if self.command == "HEAD":
            headers["content-length"] = answer.getheader("content-length") or "0"
        self._say(answer.status, headers, data)
        upstream.close()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer  # noqa: N815 - the base class's names

    def _page(self, query: dict[str, str]) -> bytes:
        keys, size = self.server.keys, self.server.size
        begin = bisect_right(keys, query.get("continuation-token") or query.get("start-after", ""))
        page = [key for key in keys[begin : begin + PAGE] if key.startswith(query["prefix"])]
        more = begin + PAGE < len(keys)
        token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more and page else ""
        lines = (f"<Contents><Key>{key}</Key><Size>{size}</Size><ETag>&quot;e&quot;</ETag></Contents>" for key in page)
        head = f"<ListBucketResult><IsTruncated>{'true' if token else 'false'}</IsTruncated>{token}"
        return f"{head}{''.join(lines)}</ListBucketResult>".encode()

    def _say(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

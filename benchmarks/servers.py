"""A source and a sink that cost as little as Python can, so that a benchmark measures the client between them.

The source gives WAVs of any size (`/?file=<account>/<n>-<size>.WAV`), each with bytes of its own. The sink speaks as
much S3 as uploads need and is strict, as S3 is: it hashes the body of every client, refuses one that differs from
its `x-amz-checksum-sha256`, and honours `If-None-Match`. It keeps no bytes, only sizes and hashes. Both answer after a
latency, each new connection and each TLS handshake as well.

    python benchmarks/servers.py source|sink --latency-ms 60 --certificate FILE     prints its port
"""

import argparse
import base64
import hashlib
import json
import re
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import parse_qs, unquote

BLOCK = 1 << 20
CHANGED = "Fri, 20 Nov 2026 10:00:00 GMT"
NOISE = hashlib.shake_256(b"speech").digest(BLOCK)
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


@lru_cache(maxsize=64)
def _audio(size: int) -> memoryview:
    """So much noise, at most 16 MiB of it, to be sent again and again."""
    wanted = min(size, 16 * BLOCK)
    return memoryview((NOISE * (wanted // BLOCK + 1))[:wanted])


def head_of(number: int, size: int) -> bytes:
    """The first 52 bytes of recording `number`: the header, and eight bytes that no other recording has."""
    header = _HEADER.pack(
        b"RIFF", size - 8, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", size - _HEADER.size
    )
    return header + number.to_bytes(8, "little")


def sha256_of(number: int, size: int) -> str:
    """The hash of recording `number`."""
    digest = hashlib.sha256(head_of(number, size))
    for part in _parts(size):
        digest.update(part)
    return digest.hexdigest()


def _parts(size: int) -> list[memoryview]:
    audio, left = _audio(size - 52), size - 52
    parts = []
    while left:
        parts.append(audio[: min(left, len(audio))])
        left -= len(parts[-1])
    return parts


class Connection:
    """One connection of a client, read by requests."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.rest = b""

    def request(self) -> tuple[str, str, dict[str, str]] | None:
        """Method, target and headers by lower-case name; None when the client is gone."""
        data = self.rest
        while b"\r\n\r\n" not in data:
            block = self.stream.recv(65536)
            if not block:
                return None
            data += block
        head, _, self.rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        return method, target, {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}

    def line(self) -> bytes:
        """The next line, without its end."""
        while b"\r\n" not in self.rest:
            self.rest += self.stream.recv(65536)
        line, _, self.rest = self.rest.partition(b"\r\n")
        return line

    def body(self, length: int, buffer: bytearray, digest: Callable[[memoryview], None]) -> None:
        """Read and hash a body of that many bytes."""
        view, left = memoryview(buffer), length
        while left:
            if self.rest:
                taken = memoryview(self.rest[:left])
                self.rest = self.rest[len(taken) :]
            else:
                count, wanted = 0, min(left, len(view))
                while count < wanted:  # a full buffer, so that hashing lets go of the GIL for long
                    got = self.stream.recv_into(view[count:wanted])
                    if not got:
                        raise ConnectionError
                    count += got
                taken = view[:wanted]
            digest(taken)
            left -= len(taken)

    def chunks(self, buffer: bytearray, digest: Callable[[memoryview], None] | None = None) -> Iterator[bytes]:
        """Read a body in chunks and its trailers, and hash it, or else give it."""
        taken: list[bytes] = []
        while length := int(self.line().split(b";")[0], 16):
            self.body(length, buffer, digest or (lambda block: taken.append(bytes(block))))
            self.line()
            yield from taken
            taken.clear()
        while self.line():
            pass

    def answer(self, status: str, body: bytes = b"", *headers: str) -> None:
        """Answer with a status line's text, headers and a body."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        self.stream.sendall("\r\n".join(lines).encode() + body)


def source(connection: Connection, pause: Callable[[], None]) -> None:
    """Answer every GET with the recording that it names."""
    while (asked := connection.request()) is not None:
        named = re.search(r"/(\d+)-(\d+)\.WAV", unquote(asked[1]))
        pause()
        if named is None:
            connection.answer("404 Not Found")
            continue
        number, size = int(named[1]), int(named[2])
        described = f"Content-Type: audio/wav\r\nContent-Length: {size}\r\nLast-Modified: {CHANGED}"
        head = f"HTTP/1.1 200 OK\r\n{described}\r\n\r\n".encode()
        if asked[0] == "HEAD":
            connection.stream.sendall(head)
            continue
        connection.stream.sendall(head + head_of(number, size))
        for part in _parts(size):
            connection.stream.sendall(part)


@dataclass
class Sink:
    """What was stored: size and SHA-256 (hex) by key; the keys of unfinished multipart uploads."""

    objects: dict[str, tuple[int, str]] = field(default_factory=dict)
    uploads: dict[str, dict[int, tuple[int, str]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, connection: Connection, pause: Callable[[], None]) -> None:
        """Answer as S3 does."""
        buffer = bytearray(BLOCK)
        while (asked := connection.request()) is not None:
            method, target, headers = asked
            path, _, query = target.partition("?")
            key, options = unquote(path).partition("/")[2].partition("/")[2], parse_qs(query, keep_blank_values=True)
            digest, size = hashlib.sha256(), int(headers.get("content-length", 0))
            sizes: list[int] = []

            def take(block: memoryview, digest=digest, sizes=sizes) -> None:  # noqa: ANN001 - bound per request
                digest.update(block)
                sizes.append(len(block))

            if headers.get("expect", "").lower() == "100-continue":
                connection.stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            if method == "POST":
                while len(connection.rest) < size:
                    connection.rest += connection.stream.recv(65536)
                connection.rest = connection.rest[size:]  # the list of parts, which are known
            elif "aws-chunked" in headers.get("content-encoding", ""):
                if headers.get("transfer-encoding") == "chunked":  # boto3 over TLS: chunks in chunks
                    connection.rest = b"".join(connection.chunks(buffer)) + connection.rest
                for _ in connection.chunks(buffer, take):
                    pass
            else:
                connection.body(size, buffer, take)
            pause()
            self._answer(connection, method, key, options, headers, (sum(sizes), digest.hexdigest()))

    def _answer(  # noqa: PLR0917
        self,
        connection: Connection,
        method: str,
        key: str,
        options: dict[str, list[str]],
        headers: dict[str, str],
        got: tuple[int, str],
    ) -> None:
        md5 = base64.b64decode(headers.get("content-md5", "")).hex()  # believed: to compute it would cost a core
        etag = f'ETag: "{md5 or got[1][:32]}"'
        announced = headers.get("x-amz-checksum-sha256")
        whole = announced is None or base64.b64decode(announced).hex() == got[1]
        echo = () if announced is None else (f"x-amz-checksum-sha256: {announced}",)
        with self.lock:
            if method == "PUT" and not whole:
                connection.answer("400 Bad Request", b"<Error><Code>BadDigest</Code></Error>")
            elif method == "PUT" and "uploadId" in options:
                self.uploads[options["uploadId"][0]][int(options["partNumber"][0])] = got
                connection.answer("200 OK", b"", etag, *echo)
            elif (method == "PUT" or "uploadId" in options) and method != "DELETE":
                if headers.get("if-none-match") == "*" and key in self.objects:
                    connection.answer("412 Precondition Failed", b"<Error><Code>PreconditionFailed</Code></Error>")
                elif method == "PUT":
                    self.objects[key] = got
                    connection.answer("200 OK", b"", etag, *echo)
                else:
                    self._complete(connection, key, options["uploadId"][0])
            elif method == "POST":
                number = str(len(self.uploads) + 1)
                self.uploads[number] = {}
                connection.answer(
                    "200 OK",
                    f"<InitiateMultipartUploadResult><UploadId>{number}</UploadId></InitiateMultipartUploadResult>".encode(),
                )
            elif method == "DELETE":
                self.uploads.pop(options["uploadId"][0], None)
                connection.answer("204 No Content")
            elif key == "_stored":
                connection.answer(
                    "200 OK", json.dumps({"objects": self.objects, "uploads": len(self.uploads)}).encode()
                )
            elif key == "":
                connection.answer("200 OK", b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
            elif key not in self.objects:
                missing = b"" if method == "HEAD" else b"<Error><Code>NoSuchKey</Code></Error>"
                connection.answer("404 Not Found", missing)
            else:
                size, sha256 = self.objects[key]
                connection.stream.sendall(
                    f'HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nETag: "{sha256[:32]}"\r\n\r\n'.encode()
                )

    def _complete(self, connection: Connection, key: str, upload: str) -> None:
        parts = [part for _, part in sorted(self.uploads.pop(upload).items())]
        composite = hashlib.sha256(b"".join(bytes.fromhex(sha256) for _, sha256 in parts)).digest()
        shown = f"{base64.b64encode(composite).decode()}-{len(parts)}"
        self.objects[key] = (sum(size for size, _ in parts), composite.hex())
        connection.answer(
            "200 OK",
            f'<CompleteMultipartUploadResult><ETag>"{composite.hex()[:32]}-{len(parts)}"</ETag>'
            f"<ChecksumSHA256>{shown}</ChecksumSHA256></CompleteMultipartUploadResult>".encode(),
        )


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["source", "sink"])
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--certificate", help="PEM file with key and certificate; without it: plain HTTP")
    options = parser.parse_args()
    latency_s = options.latency_ms / 1000
    serve = source if options.role == "source" else Sink().serve
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)

    def pause() -> None:
        if latency_s:
            time.sleep(latency_s)

    def handle(stream: socket.socket) -> None:
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pause()
            if context is not None:
                stream = context.wrap_socket(stream, server_side=True)
                pause()
            with stream:
                serve(Connection(stream), pause)
        except (OSError, ValueError):
            stream.close()

    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=lambda: _accept(listener, handle), daemon=True).start()
    sys.stdin.read()


def _accept(listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=handle, args=(stream,), daemon=True).start()


if __name__ == "__main__":
    main()

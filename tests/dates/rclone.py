"""`rclone serve s3` for clients whose clock is shifted: it refuses a request that was signed at another time than now.

A script that becomes rclone, on another port and without a key, so that it checks no signature. A child of it listens
at `--addr`, writes the real time into each request and the shifted one into each answer. Called by shifted_clock.c in
place of the program.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time

ASKED = re.compile(rb"(?i)(?<=x-amz-date: )\d{8}T\d{6}Z"), "%Y%m%dT%H%M%SZ"
ANSWERED = re.compile(rb"(?<=\r\nDate: )\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"), "%a, %d %b %Y %H:%M:%S GMT"


def pump(source: socket.socket, sink: socket.socket, written: tuple[re.Pattern[bytes], str], behind_s: float) -> None:
    """Pass on what `source` sends, with another time where one is `written`: as long, so no length is wrong."""
    pattern, form = written
    try:
        while data := source.recv(1 << 18):
            now = time.strftime(form, time.gmtime(time.time() - behind_s)).encode()
            sink.sendall(pattern.sub(now, data))
    except OSError:
        pass
    for connection in (source, sink):
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


def connect(port: int) -> socket.socket:
    """Connect to rclone, which may still be starting."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def forward(client: socket.socket, port: int, shift_s: float) -> None:
    server = connect(port)
    for connection in (client, server):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=pump, args=(server, client, ANSWERED, 0), daemon=True).start()
    pump(client, server, ASKED, shift_s)


def listen(listener: socket.socket, port: int, shift_s: float) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=forward, args=(client, port, shift_s), daemon=True).start()


def main() -> None:
    binary, *arguments = sys.argv[1:]
    if "--auth-key" in arguments:
        at = arguments.index("--auth-key")
        del arguments[at : at + 2]
    if "--addr" in arguments:
        at = arguments.index("--addr") + 1
        host, _, wanted = arguments[at].rpartition(":")
        listener = socket.create_server((host, int(wanted)), backlog=256)  # held before another port is looked for
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        arguments[at] = f"127.0.0.1:{port}"
        parent = os.getpid()
        if not os.fork():
            threading.Thread(target=listen, args=(listener, port, float(os.environ["SHIFT_S"])), daemon=True).start()
            while os.getppid() == parent:
                time.sleep(0.02)
            os._exit(0)
    bare = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "RCLONE_AUTH_KEY")}
    os.execve(os.open(binary, os.O_RDONLY), ["rclone", *arguments], bare)  # by a handle: not caught again


if __name__ == "__main__":
    main()

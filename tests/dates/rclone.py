"""`rclone serve s3` for clients whose clock is shifted: it refuses a request that was signed at another time than now.

A script that becomes rclone, on another port and without a key, so that it checks no signature. A child of it listens
at `--addr` and writes the real time into each request. Called by shifted_clock.c in place of the program.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time

DATE = re.compile(rb"(?i)(?<=x-amz-date: )\d{8}T\d{6}Z")


def pump(source: socket.socket, sink: socket.socket, shift_s: float) -> None:
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - shift_s)).encode()
    try:
        while data := source.recv(1 << 18):
            if shift_s:
                now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - shift_s)).encode()
                data = DATE.sub(now, data)
            sink.sendall(data)
    except OSError:
        pass
    for one in (source, sink):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


def listen(address: tuple[str, int], port: int, shift_s: float) -> None:
    listener = socket.create_server(address, backlog=256)
    while True:
        client, _ = listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", port))
        except OSError:  # not up yet
            client.close()
            continue
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=pump, args=(client, server, shift_s), daemon=True).start()
        threading.Thread(target=pump, args=(server, client, 0), daemon=True).start()


def main() -> None:
    binary, *arguments = sys.argv[1:]
    if "--auth-key" in arguments:
        at = arguments.index("--auth-key")
        del arguments[at : at + 2]
    if "--addr" in arguments:
        at = arguments.index("--addr") + 1
        host, _, wanted = arguments[at].rpartition(":")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        arguments[at] = f"127.0.0.1:{port}"
        parent = os.getpid()
        if not os.fork():
            listening = (host, int(wanted)), port, float(os.environ["SHIFT_S"])
            threading.Thread(target=listen, args=listening, daemon=True).start()
            while os.getppid() == parent:
                time.sleep(0.02)
            os._exit(0)
    bare = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "RCLONE_AUTH_KEY")}
    os.execve(os.open(binary, os.O_RDONLY), ["rclone", *arguments], bare)  # by a handle: not caught again


if __name__ == "__main__":
    main()

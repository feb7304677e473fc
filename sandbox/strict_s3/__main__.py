"""`python -m sandbox.strict_s3`: the strict S3 in the foreground, until SIGTERM or SIGINT; prints what leads to it."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import threading
from pathlib import Path

from sandbox.strict_s3.demands import Demands
from sandbox.strict_s3.server import StrictS3


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal arrives."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.strict_s3", description=__doc__)
    parser.add_argument("--port", type=int, default=8767, help="port of plain HTTP and the proxy, 0 for a free one")
    parser.add_argument("--bucket", default="ringcx-archive")
    parser.add_argument("--region", default="eu-central-1", help="where the bucket is")
    parser.add_argument("--object-lock", action="store_true", help="with Object Lock, hence with versions")
    parser.add_argument("--kms-key", default="", help="refuse what is not encrypted with this key")
    parser.add_argument("--data", type=Path, default=Path("data/strict-s3"), help="folder for ca.pem")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with StrictS3(options.data.resolve(), region=options.region, port=options.port) as server:
        demands = Demands(kms_key=options.kms_key)
        server.make_bucket(options.bucket, region=options.region, locked=options.object_lock, demands=demands)
        for name, value in (server.environment(region=options.region) | {"ARCHIVE_BUCKET": options.bucket}).items():
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
        sys.stdout.flush()
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())

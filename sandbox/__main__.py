"""`python -m sandbox`: the source and a local S3 in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from sandbox.config import Limits, SandboxConfig, demo_config
from sandbox.events import FORMS, EventRoute, EventSender, RunningEvents
from sandbox.s3 import LocalS3
from sandbox.server import RunningSandbox


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop. Prints one line for each server once it answers."""
    options = _parser().parse_args(arguments)
    parent = os.getppid()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        if not options.no_s3:
            s3 = stack.enter_context(LocalS3(options.data / "s3", bucket=options.bucket, port=options.s3_port))
            _say(f"S3 ready at {s3.url}")
        source = RunningSandbox(_config(options), port=options.port, address=options.host)
        _say(f"RingCX ready at {stack.enter_context(source).url}")
        if options.events_url:
            sender = EventSender(source.config, options.public_url or source.url, _route(options))
            stack.enter_context(RunningEvents(sender))
            _say(f"Events go to {options.events_url}")
        while not stop.wait(1.0):
            if options.with_parent and os.getppid() != parent:
                break
    return 0


def _config(options: argparse.Namespace) -> SandboxConfig:
    if options.config == "-":
        return SandboxConfig.from_json(json.loads(sys.stdin.read()))
    if options.config:
        return SandboxConfig.from_json(json.loads(Path(options.config).read_text()))
    config = demo_config(tuple(options.accounts.split(",")))
    limits = Limits(
        reports=options.limit_reports,
        exchange=options.limit_exchange,
        media=options.limit_media,
        metadata=options.limit_metadata,
        download=options.limit_download,
    )
    return replace(config, limits=limits, public_url=options.public_url)


def _route(options: argparse.Namespace) -> EventRoute:
    name, colon, value = options.events_header.partition(":")
    return EventRoute(
        url=options.events_url,
        form=options.events_form,
        header=(name.strip(), value.strip()) if colon else None,
        lost=options.events_lost,
        doubled=options.events_doubled,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8765, help="port of the source, 0 for a free one")
    parser.add_argument("--public-url", default="", help="how clients reach the source, if not as it listens")
    parser.add_argument("--s3-port", type=int, default=8766, help="port of the S3, 0 for a free one")
    parser.add_argument("--no-s3", action="store_true", help="only the source")
    parser.add_argument("--bucket", default="ringcx-archive")
    parser.add_argument("--data", type=Path, default=Path("data/sandbox"), help="folder that keeps the S3's objects")
    parser.add_argument("--accounts", default="15300002", help="sub-account ids, comma-separated")
    parser.add_argument("--limit-reports", default="2/60", help="requests/seconds for each account, or none")
    parser.add_argument("--limit-exchange", default="5/60")
    parser.add_argument("--limit-media", default="none")
    parser.add_argument("--limit-metadata", default="3/60,9/900")
    parser.add_argument("--limit-download", default="120/60")
    parser.add_argument("--events-url", default="", help="post an End Call Event there after each call")
    parser.add_argument("--events-form", default="query", choices=FORMS, help="how an event is written")
    parser.add_argument("--events-header", default="", help="the fixed header, as in 'X-Events-Key: secret'")
    parser.add_argument("--events-lost", type=float, default=0.0, help="share of events that are never sent")
    parser.add_argument("--events-doubled", type=float, default=0.0, help="share of events that are sent twice")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started this one ends")
    parser.add_argument("--config", help="JSON file with all settings instead of the demo's, - for standard input")
    return parser


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

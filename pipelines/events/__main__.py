"""`python -m pipelines.events`: the receiver in the foreground, until SIGTERM. `--count`: what is stored, by date."""

from __future__ import annotations

import argparse
import logging
import sys

from pipelines.archive.errors import StorageError
from pipelines.events.count import print_counts
from pipelines.events.place import EventsUnavailable
from pipelines.events.server import run
from pipelines.settings import ReceiverSettings, S3Settings, SettingsError, load


def main(arguments: list[str] | None = None) -> int:
    """0 when it ended as asked, 1 when it could not start or not read, with one sentence."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.events", description=__doc__)
    parser.add_argument("--count", action="store_true", help="print how many events are stored, and end")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pipelines.events").setLevel(logging.INFO)
    try:
        if options.count:
            print_counts(load(S3Settings), sys.stdout)
        else:
            run(load(ReceiverSettings))
    except (SettingsError, StorageError, EventsUnavailable) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

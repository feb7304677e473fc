"""Compare an archive with the source's own list: every recording there once, byte for byte, and nothing else.

The bucket is read without the product's code; then `ringcx-archive verify` runs. For trials under hard conditions.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import boto3

from pipelines.ledger.states import RecordingState
from pipelines.orchestration.environment import Environment
from sandbox.s3 import LocalS3
from sandbox.server import RunningSandbox

_ROOT = Path(__file__).parents[1]
Truth = Mapping[str, Mapping[str, Any]]


def truth_of(source: RunningSandbox, days: list[date]) -> Truth:
    """The recordings that start on `days`, by their id, as the source lists them."""
    return {recording["recording_id"]: recording for day in days for recording in source.truth(day.isoformat())}


def states_of(days: list[date]) -> dict[str, RecordingState]:
    """What the ledger of the environment's settings knows of `days`."""
    return Environment().stores.ledger.states(days)


def prove(days: list[date], truth: Truth, source: RunningSandbox, s3: LocalS3) -> tuple[int, list[str]]:
    """How many recordings are held with exact bytes, and a sentence for each thing that is not as it should be."""
    held, problems = 0, []
    states = states_of(days)
    # A session of its own: the default one keeps the credentials that it was made with.
    bucket = boto3.Session().resource("s3", endpoint_url=s3.url).Bucket(s3.bucket)
    digests = {
        item.key: hashlib.sha256(item.get()["Body"].read()).hexdigest()
        for item in bucket.objects.filter(Prefix="recordings/")
    }
    copies = Counter(digests.values())
    for recording_id, recording in truth.items():
        state = states.get(recording_id)
        if state is None or state.key is None:
            problems.append(f"{recording_id} is not held: {state.status if state else 'unknown to the ledger'}.")
        elif digests.get(state.key) != recording["sha256"]:
            problems.append(f"{recording_id} has other bytes in the archive than at the source.")
        else:
            held += 1
        if copies[recording["sha256"]] > 1:
            problems.append(f"{recording_id} is stored {copies[recording['sha256']]} times.")
    # The last date's pull finds some of the day after.
    beyond = truth_of(source, [days[-1] + timedelta(days=1)])
    wanted = {recording["sha256"] for known in (truth, beyond) for recording in known.values()}
    problems += [f"{key} holds bytes that the source never had." for key in digests if digests[key] not in wanted]
    command = [
        sys.executable,
        "-m",
        "pipelines.cli.main",
        "verify",
        "--from",
        f"{days[0]}",
        "--to",
        f"{days[-1]}",
        "--read-data",
    ]
    verified = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    if verified.returncode:
        problems.append(f"verify doubts the archive: {verified.stdout[-500:]}{verified.stderr[-500:]}")
    return held, problems


def exceeded(counters: Mapping[str, Any]) -> list[str]:
    """Return a sentence if more was requested from the source than its limits allow."""
    over = {name: number for name, number in counters["violations"].items() if number}
    return [f"The source's limits were exceeded: {over}."] if over else []


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """`variables` in the environment for the length of a `with` block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

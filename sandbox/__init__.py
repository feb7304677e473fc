"""A RingCX to try the product on and to test against, and a local S3.

It imitates what a client of the vendor can see: log-in, reports, recordings, limits, and the ways they fail.
It is not a test of the product, and the two only meet over HTTP. Only `demo.py`, `chaos.py` and `proof.py`, which run
the product against it, import the product.
"""

from __future__ import annotations

from sandbox.config import Credentials, Limits, SandboxConfig, demo_config
from sandbox.events import EventRoute, EventSender
from sandbox.faults import Faults, Where
from sandbox.s3 import LocalS3
from sandbox.server import RunningSandbox

__all__ = [
    "Credentials",
    "EventRoute",
    "EventSender",
    "Faults",
    "Limits",
    "LocalS3",
    "RunningSandbox",
    "SandboxConfig",
    "Where",
    "demo_config",
]

"""All of Dagster that is private and still used. requirements.lock pins it; tests/dagster and tests/deploy run over it.

There is no public call for a run that starts at once and has the origin that the UI gives it, none to say why a run
failed, which run retries ask for, and none to read the message that `CeleryRunLauncher` sends.
"""

from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import serialize_value, unpack_value

__all__ = [
    "ExecuteRunArgs",
    "JobFailureData",
    "ReconstructableRepository",
    "RegisteredCodeLocationOrigin",
    "RemoteJobOrigin",
    "RemoteRepositoryOrigin",
    "RunFailureReason",
    "serialize_value",
    "unpack_value",
]

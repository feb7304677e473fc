"""All private modules of Dagster in use. requirements.lock pins Dagster; tests/dagster and tests/deploy cover them.

No public call starts a run at once with the origin that the UI gives it, records why a run failed, which run retries
depend on, or reads the message that `CeleryRunLauncher` sends.
"""
# ruff: noqa: F401 - re-exported on purpose
# mypy: implicit-reexport

from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import serialize_value, unpack_value

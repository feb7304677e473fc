"""What our values for Dagster's Helm chart may hold, and the dagster.yaml that the chart makes of them.

The chart itself comes from no registry that tests may ask. So the parts of its values that we set are written down
here, from its documentation: a misspelt or misplaced name is refused, where Helm would ignore it. Dagster's own code
then judges what these parts become.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Part(BaseModel):
    """Its fields are the chart's names, in Python's spelling."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class Named(Part):
    name: str


class Image(Part):
    repository: str
    tag: str
    pull_policy: Literal["Always", "IfNotPresent", "Never"]


class Resources(Part):
    requests: dict[Literal["cpu", "memory"], str]
    limits: dict[Literal["cpu", "memory"], str]


class Pod(Part):
    """What every pod of the deployment has."""

    image: Image
    pod_security_context: dict[str, Any]
    security_context: dict[str, Any]
    resources: Resources


class Switch(Part):
    enabled: bool


class CodeLocation(Pod):
    name: str
    dagster_api_grpc_args: list[str]
    port: int
    include_config_in_launched_runs: Switch
    env_config_maps: list[Named]
    env_secrets: list[Named]
    volumes: list[dict[str, Any]]
    volume_mounts: list[dict[str, Any]]


class CodeLocations(Switch):
    deployments: list[CodeLocation]


class Threads(Part):
    use_threads: bool
    num_workers: int


class Monitoring(Switch):
    start_timeout_seconds: int
    cancel_timeout_seconds: int
    max_resume_run_attempts: int
    poll_interval_seconds: int
    free_slots_after_run_end_seconds: int


class Retries(Switch):
    max_retries: int
    retry_on_asset_or_op_failure: bool


class Coordinator(Switch):
    type: Literal["QueuedRunCoordinator"]
    config: dict[Literal["queuedRunCoordinator"], dict[str, Any]]


class Daemon(Pod):
    enabled: bool
    run_coordinator: Coordinator
    run_monitoring: Monitoring
    run_retries: Retries
    sensors: Threads
    schedules: Threads


class TagLimit(Part):
    key: str
    value: str | dict[Literal["applyLimitPerUniqueValue"], bool] | None = None
    limit: int


class Runs(Part):
    max_concurrent_runs: int
    tag_concurrency_limits: list[TagLimit]


class Pools(Part):
    granularity: Literal["op", "run"]
    default_limit: int


class Concurrency(Switch):
    runs: Runs
    pools: Pools


class CustomClass(Part):
    """Dagster's own schema of the class judges its `config`: a name that is misspelt there is refused, too."""

    module: Literal["dagster_k8s"]
    class_: Annotated[Literal["K8sRunLauncher"], Field(alias="class")]
    config: dict[str, Any]


class Launcher(Part):
    type: Literal["CustomRunLauncher"]
    config: dict[Literal["customRunLauncher"], CustomClass]


class Service(Part):
    port: int


class PostgreSQL(Switch):
    postgresql_host: str
    postgresql_username: str
    postgresql_database: str
    service: Service


class Global(Part):
    postgresql_secret_name: str
    service_account_name: str


class ServiceAccount(Part):
    create: bool
    name: str
    annotations: dict[str, str]


class ComputeLogs(Part):
    type: Literal["NoOpComputeLogManager"]


class Values(Part):
    fullname_override: str
    global_: Annotated[Global, Field(alias="global")]
    service_account: ServiceAccount
    generate_postgresql_password_secret: bool
    postgresql: PostgreSQL
    code_locations: Annotated[CodeLocations, Field(alias="dagster-user-deployments")]
    dagster_webserver: Pod
    dagster_daemon: Daemon
    concurrency: Concurrency
    run_launcher: Launcher
    compute_log_manager: ComputeLogs
    migrate: Switch
    rabbitmq: Switch
    redis: Switch
    flower: Switch
    telemetry: Switch
    additional_instance_config: dict[str, Any]


def instance(values: Values) -> dict[str, Any]:
    """The dagster.yaml of the deployment."""
    daemon, of_database = values.dagster_daemon, values.postgresql
    runs, pools = values.concurrency.runs, values.concurrency.pools
    return {
        "storage": {
            "postgres": {
                "postgres_db": {
                    "username": of_database.postgresql_username,
                    "password": {"env": "DAGSTER_PG_PASSWORD"},
                    "hostname": of_database.postgresql_host,
                    "db_name": of_database.postgresql_database,
                    "port": of_database.service.port,
                }
            }
        },
        "run_launcher": values.run_launcher.config["customRunLauncher"].model_dump(by_alias=True),
        "run_coordinator": {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator"},
        "compute_logs": {
            "module": "dagster.core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        },
        "concurrency": {
            "runs": {
                "max_concurrent_runs": runs.max_concurrent_runs,
                "tag_concurrency_limits": [
                    limit.model_dump(exclude_none=True) for limit in runs.tag_concurrency_limits
                ],
            },
            "pools": {"granularity": pools.granularity, "default_limit": pools.default_limit},
        },
        "run_monitoring": daemon.run_monitoring.model_dump(),
        "run_retries": daemon.run_retries.model_dump(),
        "sensors": daemon.sensors.model_dump(),
        "schedules": daemon.schedules.model_dump(),
        "telemetry": values.telemetry.model_dump(),
        **values.additional_instance_config,
    }

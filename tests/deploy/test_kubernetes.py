"""The Kubernetes objects that Dagster makes of deploy/kubernetes/, down to the Job of one date."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance, DagsterRun
from dagster._config import process_config
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster_k8s.launcher import K8sRunLauncher
from kubernetes import client
from pydantic import ValidationError

from tests.deploy import chart

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
IMAGE = "registry.example.com/ringcx-archive:0.2.0"
SECRETS = {
    "RINGCENTRAL_JWT": "not-for-a-manifest-1",
    "AWS_SECRET_ACCESS_KEY": "not-for-a-manifest-2",
    "DAGSTER_PG_PASSWORD": "not-for-a-manifest-3",
    "RATE_LIMIT_URL": "postgresql://a:not-for-a-manifest-4@b/c",
}


def raw_values() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text())
    return read


@pytest.fixture
def values() -> chart.Values:
    return chart.Values.model_validate(raw_values())


class FakeCluster:
    """Takes what the launcher sends to the Kubernetes API, and answers as the API does to a first request."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, dict[str, Any]]] = []

    def create_namespaced_job(self, body: client.V1Job, namespace: str, **_: object) -> client.V1Job:
        self.jobs.append((namespace, client.ApiClient().sanitize_for_serialization(body)))
        return body


def launched(folder: Path, tags: dict[str, str]) -> dict[str, Any]:
    """The Job of one date, as the cluster gets it."""
    (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    access = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(access))
    outside = {"load_incluster_config": False, "kubeconfig_file": str(folder / "kubeconfig")}
    described = chart.instance(chart.Values.model_validate(raw_values()))["run_launcher"]["config"]
    repository = RepositoryPythonOrigin(
        executable_path="python",
        code_pointer=ModuleCodePointer("pipelines.definitions", "defs", working_directory="/scratch"),
        container_image=IMAGE,
        entry_point=["dagster"],
        container_context={},
    )
    run = DagsterRun(
        job_name="archive_day",
        tags={"dagster/partition": "2026-11-18", **tags},
        job_code_origin=JobPythonOrigin(job_name="archive_day", repository_origin=repository),
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SECRETS, "DAGSTER_HOME": str(folder)}.items():
            patch.setenv(name, value)
        checked = process_config(K8sRunLauncher.config_type(), described | outside)
        assert checked.success, checked.errors
        cluster = FakeCluster()
        launcher = K8sRunLauncher(**checked.value, k8s_client_batch_api=cluster, k8s_client_core_api=object())
        with DagsterInstance.get() as instance:
            launcher.register_instance(instance)
            instance.add_run(run)
            launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
    ((namespace, made),) = cluster.jobs
    assert namespace == "ringcx-archive"
    return made


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return launched(tmp_path_factory.mktemp("home"), {})


def container(job: dict[str, Any]) -> dict[str, Any]:
    (only,) = job["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def test_a_run_is_the_image_of_its_code_location_and_executes_that_run(job: dict[str, Any]) -> None:
    assert container(job)["image"] == IMAGE
    assert container(job)["args"][:3] == ["dagster", "api", "execute_run"]


def test_a_run_takes_its_secrets_by_the_name_of_a_secret_and_no_value_is_in_it(job: dict[str, Any]) -> None:
    sources = container(job)["envFrom"]
    assert {"secretRef": {"name": "ringcx-archive-secrets"}} in sources
    assert {"configMapRef": {"name": "ringcx-archive-settings"}} in sources
    (password,) = [variable for variable in container(job)["env"] if variable["name"] == "DAGSTER_PG_PASSWORD"]
    assert password["valueFrom"]["secretKeyRef"] == {
        "name": "ringcx-archive-postgresql",
        "key": "postgresql-password",
    }
    assert "not-for-a-manifest" not in json.dumps(job)


def test_a_run_has_a_scratch_folder_of_its_own_and_shares_no_volume(job: dict[str, Any]) -> None:
    volumes = {volume["name"]: volume for volume in job["spec"]["template"]["spec"]["volumes"]}
    kinds = {name: sorted(set(volume) - {"name"}) for name, volume in volumes.items()}
    assert kinds == {"work": ["emptyDir"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container(job)["volumeMounts"]}
    assert mounts["work"] == "/scratch"
    variables = {variable["name"]: variable.get("value") for variable in container(job)["env"]}
    assert variables["DATA_DIR"].startswith("/scratch/")
    assert variables["DAGSTER_HOME"] == "/opt/dagster/dagster_home"


def test_a_run_may_do_little_on_its_node(job: dict[str, Any]) -> None:
    pod = job["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "ringcx-archive"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container(job)["securityContext"]["allowPrivilegeEscalation"] is False
    assert container(job)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    resources = container(job)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert resources["limits"] == {"memory": "1Gi"}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"container_config": {"image": "elsewhere.example/image"}}, "container_config.image"),
        ({"container_config": {"env": [{"name": "PYTHONSTARTUP", "value": "/x"}]}}, "container_config.env"),
        ({"container_config": {"command": ["sh", "-c", "env"]}}, "container_config.command"),
        ({"pod_spec_config": {"service_account_name": "admin"}}, "pod_spec_config.service_account_name"),
        ({"pod_spec_config": {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}}, "pod_spec_config.volumes"),
        ({"pod_template_spec_metadata": {"namespace": "kube-system"}}, "pod_template_spec_metadata.namespace"),
        ({"job_spec_config": {"parallelism": 9}}, "job_spec_config.parallelism"),
    ],
)
def test_a_tag_of_a_run_changes_nothing_of_its_pod(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    with pytest.raises(Exception, match="violated the allowed list") as refused:
        launched(tmp_path, {"dagster-k8s/config": json.dumps(config)})
    assert named in str(refused.value)


def test_a_run_ends_when_it_hangs_is_not_repeated_behind_dagsters_back_and_is_swept_away(job: dict[str, Any]) -> None:
    assert job["spec"]["activeDeadlineSeconds"] == 43200
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400


def test_a_run_can_be_found_by_its_labels(job: dict[str, Any]) -> None:
    for labels in (job["metadata"]["labels"], job["spec"]["template"]["metadata"]["labels"]):
        assert labels["app.kubernetes.io/part-of"] == "ringcx-archive"
        assert labels["app.kubernetes.io/component"] == "run_worker"
        assert labels["dagster/job"] == "archive_day"
        assert len(labels["dagster/run-id"]) == 36


def test_dagster_takes_the_instance_that_the_values_describe(
    values: chart.Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "any")
    config = process_config(dagster_instance_config_schema(), chart.instance(values))
    assert config.success, config.errors


def test_a_misspelt_value_is_refused() -> None:
    wrong = raw_values()
    wrong["dagsterDaemon"]["runRetrys"] = {}
    with pytest.raises(ValidationError, match="runRetrys"):
        chart.Values.model_validate(wrong)
    wrong = raw_values()
    launcher = wrong["runLauncher"]["config"]["customRunLauncher"]["config"]
    launcher["env_secret"] = launcher.pop("env_secrets")
    refused = process_config(K8sRunLauncher.config_type(), launcher)
    assert refused.errors is not None
    assert "env_secret" in refused.errors[0].message


def test_code_location_and_runs_read_the_same_settings(values: chart.Values) -> None:
    (location,) = values.code_locations.deployments
    launcher = values.run_launcher.config["customRunLauncher"].config
    assert [secret.name for secret in location.env_secrets] == launcher["env_secrets"]
    assert [config_map.name for config_map in location.env_config_maps] == launcher["env_config_maps"]
    assert f"{location.image.repository}:{location.image.tag}" == IMAGE


def test_the_objects_beside_the_chart_have_the_names_that_it_is_given(values: chart.Values) -> None:
    settings = list(yaml.safe_load_all((FOLDER / "settings.example.yaml").read_text()))
    names = {(document["kind"], document["metadata"]["name"]) for document in settings}
    (location,) = values.code_locations.deployments
    wanted = {("ConfigMap", config_map.name) for config_map in location.env_config_maps} | {
        ("Secret", secret.name) for secret in location.env_secrets
    }
    assert names == wanted | {("Secret", values.global_.postgresql_secret_name)}
    held = [value for document in settings if document["kind"] == "Secret" for value in document["stringData"].values()]
    assert set(held) == {""}, "an example holds no secret"

    pools = yaml.safe_load((FOLDER / "pools.yaml").read_text())
    pod = pools["spec"]["template"]["spec"]
    (only,) = pod["containers"]
    assert only["image"] == IMAGE
    assert pod["serviceAccountName"] == values.service_account.name
    assert pod["volumes"][0]["configMap"]["name"] == f"{values.fullname_override}-instance"
    limits = {
        variable["name"]: int(variable["value"]) for variable in only["env"] if variable["name"].startswith("POOL_")
    }
    assert set(limits.values()) == {values.concurrency.runs.max_concurrent_runs}

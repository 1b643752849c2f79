"""Manifests against the schemas of the operator and of Kubernetes, and against the cluster file.

The operator's schemas are the CustomResourceDefinitions that its release installs, as the package
dask-kubernetes holds them; those of Kubernetes are of its OpenAPI document, as kubernetes-validate holds it.
"""

import copy
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from daskumap.clusters.files import parse, read
from daskumap.errors import ClusterError, ParameterError

pytestmark = pytest.mark.services
jsonschema = pytest.importorskip("jsonschema")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

CONFIGS = Path(__file__).parents[2] / "cluster_configs"
FOLDER = CONFIGS / "kubernetes"
ALL = {path.stem: list(yaml.safe_load_all(path.read_text())) for path in sorted(FOLDER.glob("*.yaml"))}
NIGHTLY = Path(__file__).parents[2] / "workflows" / "kubernetes" / "nightly.yaml"
ALL["nightly"] = list(yaml.safe_load_all(NIGHTLY.read_text()))
MANIFESTS = [(name, i) for name, found in ALL.items() for i in range(len(found))]
VERSION = "1.30"


@pytest.fixture(scope="module")
def cluster():
    return read(CONFIGS / "kubernetes.yaml")


def crd(kind):
    """Return the schema of a resource of the operator, in which unknown keys are mistakes."""
    folder = files("dask_kubernetes") / "operator/deployment/helm/dask-kubernetes-operator/crds"
    found = yaml.safe_load((folder / f"{kind.lower()}.yaml").read_text())
    return strict(found["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def strict(schema):
    """Return a schema that refuses keys which it does not name, where it names any."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(part) for key, part in schema.items()}
    if schema.get("type") == "object" and "properties" in schema and "additionalProperties" not in schema:
        schema["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    return schema


def check(manifest):
    """Validate a manifest against the published schema of its kind."""
    if manifest["apiVersion"] == "kubernetes.dask.org/v1":
        schema = copy.deepcopy(crd(manifest["kind"]))
        schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"required": ["name"]}}
        jsonschema.validate(manifest, schema)
    else:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


@pytest.mark.parametrize(("name", "number"), MANIFESTS)
def test_a_manifest_is_what_its_schema_takes(name, number):
    check(ALL[name][number])


@pytest.mark.parametrize(
    "mistake",
    [
        lambda spec: spec["worker"].update(replicas="four"),
        lambda spec: spec["worker"]["spec"]["containers"][0].pop("name"),
        lambda spec: spec["worker"]["spec"]["containers"][0].update(imagee="x"),
        lambda spec: spec.pop("scheduler"),
    ],
)
def test_a_mistake_is_found(cluster, mistake):
    manifest = copy.deepcopy(cluster.manifest())
    mistake(manifest["spec"])
    with pytest.raises(jsonschema.ValidationError):
        check(manifest)


def test_with_a_volume_an_account_and_a_folder(cluster):
    content = yaml.safe_load((CONFIGS / "kubernetes.yaml").read_text())
    more = {"volume": {"claim": "data", "path": "/data"}, "service_account": "reader", "folder": "/tmp"}
    manifest = parse({**content, **more, "environment": {"HERE": "1"}}, "file").manifest()
    check(manifest)
    worker = manifest["spec"]["worker"]["spec"]
    assert worker["serviceAccountName"] == "reader"
    assert worker["containers"][0]["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
    assert {"name": "HERE", "value": "1"} in worker["containers"][0]["env"]
    for part in ("worker", "scheduler"):  # as Kubernetes itself checks pods
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x"},
            "spec": manifest["spec"][part]["spec"],
        }
        check(pod)


def test_the_files_are_of_the_cluster_file(cluster):
    assert ALL["cluster"] == [cluster.manifest()]
    job = next(one for one in ALL["job"] if one["kind"] == "DaskJob")
    assert job["spec"]["cluster"]["spec"] == cluster.manifest()["spec"]
    assert job["metadata"]["name"] == cluster.name  # by which the service finds its scheduler
    held = {
        one["metadata"]["name"]: one["data"]
        for name in ("job", "cronjob")
        for one in ALL[name]
        if "data" in one
    }
    assert parse(yaml.safe_load(held["daskumap-cluster"]["kubernetes.yaml"]), "cronjob.yaml") == cluster
    address = parse(yaml.safe_load(held["daskumap-address"]["address.yaml"]), "job.yaml")
    assert (address.kind, address.workers, address.address) == ("address", cluster.workers, None)


def test_the_commands_are_ones_that_there_are():
    import typer

    from daskumap.cli.main import app

    for name, kind in (("job", "DaskJob"), ("cronjob", "CronJob")):
        spec = next(one for one in ALL[name] if one["kind"] == kind)["spec"]
        pod = spec["job"]["spec"] if kind == "DaskJob" else spec["jobTemplate"]["spec"]["template"]["spec"]
        container = pod["containers"][0]
        program, command, *rest = container["command"] + container["args"]
        assert program == "daskumap"
        root = typer.main.get_command(app)
        root.get_command(None, command).make_context(command, list(rest))
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert rest[-1].startswith(mounted["cluster"] + "/")


def test_who_may_do_it_is_the_account_of_the_run():
    role, binding = (
        next(one for one in ALL["rbac"] if one["kind"] == kind) for kind in ("Role", "RoleBinding")
    )
    account = next(one for one in ALL["rbac"] if one["kind"] == "ServiceAccount")["metadata"]["name"]
    cron = next(one for one in ALL["cronjob"] if one["kind"] == "CronJob")
    assert cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["serviceAccountName"] == account
    assert binding["subjects"][0]["name"] == account
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert {one["metadata"].get("namespace", one["metadata"]["name"]) for one in ALL["rbac"]} == {"daskumap"}


def test_no_cluster_is_an_error_that_says_where_to_look(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(
        ClusterError, match=r"kind kubernetes could not be started .*kubectl -n daskumap get pods"
    ):
        cluster.started().__enter__()


def test_certificates_of_files_are_refused(cluster):
    content = yaml.safe_load((CONFIGS / "kubernetes.yaml").read_text())
    with pytest.raises(ParameterError, match="tls has no effect: its files are not in the pods"):
        parse({**content, "tls": {"ca": "a", "cert": "b", "key": "c"}}, "file")

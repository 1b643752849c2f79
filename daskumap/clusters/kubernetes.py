"""Workers as pods of Kubernetes, by Dask's operator."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from daskumap.clusters.base import Part, Sized, connected

# Of a name that Kubernetes takes; workers get theirs from it, with some 30 characters more.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$", max_length=30)]
SCHEDULER_PORT, DASHBOARD_PORT = 8786, 8787


class Volume(Part):
    """A persistent volume claim, which all pods mount."""

    claim: Name = Field(description="name of the claim, which has to allow many readers and writers")
    path: str = Field(pattern="^/", description="where pods see it")


class Kubernetes(Sized):
    """A `DaskCluster` of the operator, made for a run and deleted after it."""

    kind: Literal["kubernetes"]
    extra: ClassVar[str] = "kubernetes"

    name: Name = Field("daskumap", description="name of the cluster; one that is there is refused")
    namespace: Name | None = Field(None, description="default: that of the current context, or of the pod")
    image: str = Field(description="container image with daskumap, the same versions as the run's own")
    volume: Volume | None = Field(None, description="a claim with data and run store, if in no bucket")
    secrets: tuple[Name, ...] = Field((), description="secrets whose keys become variables, as for a bucket")
    service_account: Name | None = Field(None, description="account of the pods, as for a bucket's role")
    scheduler_memory: str = Field("2Gi", description="memory of the scheduler")

    @model_validator(mode="after")
    def _no_tls(self) -> Kubernetes:
        if self.tls:
            raise ValueError(
                "tls has no effect: its files are not in the pods. Leave it out; a NetworkPolicy keeps "
                "others out"
            )
        return self

    @property
    def look(self) -> str:
        """What to look at where no workers come."""
        where = f"-n {self.namespace} " if self.namespace else ""
        return (
            f"Look at `kubectl {where}get pods,daskclusters` and `kubectl {where}describe pods -l "
            f"dask.org/cluster-name={self.name}`: whether the operator runs, the image is found, and the "
            "nodes "
            "have the memory that is asked for."
        )

    def explain(self) -> list[str]:
        """Return sentences that say what a run would do with it."""
        reach = "a volume" if self.volume else "buckets"
        return [
            f"A run creates the DaskCluster {self.name} in the namespace "
            f"{self.namespace or 'of its context'}, whose "
            f"pods of {self.image} are a scheduler and {self.size()}. It deletes it when it ends.",
            f"Data and run store are in {reach}. The operator has to be installed: "
            "helm install --repo https://helm.dask.org --generate-name dask-kubernetes-operator.",
            "Pods of the same network can run code on the scheduler: a NetworkPolicy, as in "
            "cluster_configs/kubernetes/rbac.yaml, keeps out all others.",
        ]

    def shown(self) -> str:
        """Return the manifest."""
        import yaml

        return str(yaml.safe_dump(self.manifest(), sort_keys=False))

    def manifest(self) -> dict[str, Any]:
        """Return the `DaskCluster` that is created."""
        ports = [("tcp-comm", SCHEDULER_PORT), ("http-dashboard", DASHBOARD_PORT)]
        scheduler = self._container(
            "scheduler",
            ["dask", "scheduler", "--host", "0.0.0.0"],
            {
                "requests": {"cpu": "1", "memory": self.scheduler_memory},
                "limits": {"memory": self.scheduler_memory},
            },
        )
        scheduler |= {
            "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports],
            "readinessProbe": _probe("/health", 5, 10),
            "livenessProbe": _probe("/health", 15, 20),
        }
        return {
            "apiVersion": "kubernetes.dask.org/v1",
            "kind": "DaskCluster",
            "metadata": {"name": self.name, **({"namespace": self.namespace} if self.namespace else {})},
            "spec": {
                "worker": {"replicas": self.workers, "spec": self._pod(self._worker())},
                "scheduler": {
                    "spec": self._pod(scheduler),
                    "service": {
                        "type": "ClusterIP",
                        "selector": {"dask.org/cluster-name": self.name, "dask.org/component": "scheduler"},
                        "ports": [_service_port(name, port) for name, port in ports],
                    },
                },
            },
        }

    def _worker(self) -> dict[str, Any]:
        folder = ["--local-directory", self.folder] if self.folder else []
        start = ["dask", "worker", "--name", "$(DASK_WORKER_NAME)", "--nthreads", str(self.threads)]
        return self._container(
            "worker",
            [*start, "--memory-limit", str(self.memory), "--no-dashboard", *folder],
            _resources(str(self.threads), str(self.memory)),
        )

    def _container(self, name: str, arguments: list[str], resources: dict[str, Any]) -> dict[str, Any]:
        container = {
            "name": name,
            "image": self.image,
            "args": arguments,
            "env": [{"name": key, "value": value} for key, value in self.variables().items()],
            "resources": resources,
        }
        if self.secrets:
            container["envFrom"] = [{"secretRef": {"name": secret}} for secret in self.secrets]
        if self.volume:
            container["volumeMounts"] = [{"name": "data", "mountPath": self.volume.path}]
        return container

    def _pod(self, container: dict[str, Any]) -> dict[str, Any]:
        pod: dict[str, Any] = {"containers": [container]}
        if self.service_account:
            pod["serviceAccountName"] = self.service_account
        if self.volume:
            pod["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": self.volume.claim}}]
        return pod

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """Create the cluster; refuse one of that name that is there."""
        from dask_kubernetes.operator import KubeCluster
        from dask_kubernetes.operator.kubecluster.kubecluster import CreateMode

        cluster = KubeCluster(
            custom_cluster_spec=self.manifest(),
            namespace=self.namespace,
            n_workers=self.workers,
            create_mode=CreateMode.CREATE_ONLY,
            shutdown_on_close=True,
            resource_timeout=int(self.wait),
            quiet=True,
        )
        with cluster, connected(cluster) as client:
            yield client


def _resources(cpu: str, memory: str) -> dict[str, Any]:
    """Ask for cores and memory. A core that is free may be used too; memory beyond the limit ends the pod."""
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}}


def _service_port(name: str, port: int) -> dict[str, Any]:
    return {"name": name, "protocol": "TCP", "port": port, "targetPort": name}


def _probe(path: str, delay: int, period: int) -> dict[str, Any]:
    return {
        "httpGet": {"port": "http-dashboard", "path": path},
        "initialDelaySeconds": delay,
        "periodSeconds": period,
    }

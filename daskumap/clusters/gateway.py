"""Workers of a Dask Gateway, which a site runs for its users."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from daskumap.clusters.base import Cluster, Count
from daskumap.errors import ClusterError, ParameterError


class Gateway(Cluster):
    """A cluster that a gateway makes for a run."""

    kind: Literal["gateway"]
    extra: ClassVar[str] = "gateway"

    workers: Count = Field(description="worker processes; their number does not change")
    address: str | None = Field(None, description="URL of the gateway; default: that of Dask's configuration")
    proxy_address: str | None = Field(None, description="URL of its scheduler proxy, if another one")
    auth: Literal["basic", "kerberos", "jupyterhub"] | None = Field(
        None, description="how users are known; default: what Dask's configuration says"
    )
    options: dict[str, str | int | float | bool] = Field(
        {}, description="what the site lets users choose, such as worker_cores and worker_memory"
    )

    @model_validator(mode="after")
    def _own_tls(self) -> Gateway:
        if self.tls:
            raise ValueError("tls has no effect: the gateway has certificates of its own. Leave it out")
        return self

    @property
    def expected(self) -> int:
        """All of them."""
        return self.workers

    @property
    def where(self) -> str:
        """Name the gateway."""
        return self.address or "the gateway of Dask's configuration (gateway.address)"

    @property
    def look(self) -> str:
        """What to look at where no workers come."""
        return (
            f"Look whether {self.where} answers, knows you (auth), and has room: its site says where logs "
            "of workers "
            "are, and `dask_gateway.Gateway().list_clusters()` what runs of yours."
        )

    def explain(self) -> list[str]:
        """Return sentences that say what a run would do with it."""
        return [
            f"A run asks {self.where} for a cluster of {self.workers} worker(s), and closes it when it ends.",
            "Size, image and settings of a worker are the site's, as far as `options` cannot choose them; a "
            "warning "
            "names settings that no plan counts with.",
            "The gateway encrypts and authenticates all connections itself.",
        ]

    def sizes(self) -> dict[str, int]:
        """Return their number; how large they are the site knows."""
        return {"workers": self.workers}

    def shown(self) -> str:
        """Return what is asked for."""
        import json

        return f"POST {self.address or '<gateway.address>'}/api/v1/clusters/\n" + json.dumps(
            {"cluster_options": self.options}, indent=1
        )

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """Ask for a cluster."""
        from dask_gateway import Gateway as Server

        server = Server(self.address, proxy_address=self.proxy_address, auth=self.auth)
        cluster = server.new_cluster(self._chosen(server.cluster_options()), shutdown_on_close=True)
        # The cluster closes it, and it would do so again when it is collected, and complain.
        server.close = lambda: None
        with cluster:
            cluster.scale(self.workers)
            with cluster.get_client(set_as_default=False) as client:
                yield client

    def _chosen(self, offered: Any) -> Any:
        """Return the options of the site with those of the file, and variables where users choose them."""
        known = list(offered)
        for name, value in self.options.items():
            if name not in known:
                raise ParameterError(
                    f"options has {name}, which {self.where} does not offer; it has "
                    f"{', '.join(known) or 'none'}."
                )
            try:
                offered[name] = value
            except (TypeError, ValueError) as error:
                raise ClusterError(f"The gateway does not take {name}: {value!r} ({error}).") from error
        if "environment" in known and "environment" not in self.options:
            offered["environment"] = {**dict(offered["environment"] or {}), **self.variables()}
        return offered

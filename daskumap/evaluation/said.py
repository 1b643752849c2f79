"""What each measure is called, and what it says in a line: the table of docs/quality.md in short."""

from __future__ import annotations

import math
from collections.abc import Mapping

from daskumap.kernels.quality.sampled import Estimate

SAID = {
    "trustworthiness": "neighbours on the map are near in the data: .5 by chance, 1 at best",
    "continuity": "neighbours in the data are near on the map: .5 by chance, 1 at best",
    "knn_preservation": "share of the nearest rows that the map keeps; falls as rows become more",
    "auc_rnx": "the same for all sizes of neighbourhoods, without chance: 0 to 1",
    "triplet_accuracy": "of three rows the nearer pair is the same: .5 by chance, 1 at best",
    "distance_correlation": "order of all distances: 0 by chance, 1 at best",
    "seams": "neighbours beyond a border of cells, how much farther on the map: 1 is no seam",
    "knn_accuracy": "a vote of neighbours on the map names the class of a row",
    "nearest_accuracy": "the nearest row on the map has the class of a row",
    "silhouette": "classes lie apart on the map: 0 by chance, 1 at best",
    "kmeans_nmi": "clusters of k-means on the map are the classes: NMI",
    "kmeans_ari": "adjusted Rand index: 0 by chance, 1 at best",
    "kmeans_ami": "adjusted mutual information: 0 by chance, 1 at best",
    "hdbscan_nmi": "clusters of HDBSCAN on the map are the classes: NMI",
    "hdbscan_ari": "adjusted Rand index: 0 by chance, 1 at best",
    "hdbscan_ami": "adjusted mutual information: 0 by chance, 1 at best",
}


def as_json(found: Estimate) -> dict[str, float | None]:
    """Return an estimate as JSON types, None for what is not known."""
    return {name: None if math.isnan(value) else float(value) for name, value in found._asdict().items()}


def describe(measures: Mapping[str, Estimate]) -> str:
    """Return what `daskumap.evaluate` found as lines: name, figure, interval of 95 %, and what it says."""
    return "\n".join(f"{name:<22}{figure(one)}{SAID[name]}" for name, one in measures.items())


def figure(found: Estimate) -> str:
    """Return an estimate with its interval, where there is one; at a fixed width."""
    if math.isnan(found.value):
        return "not defined".ljust(26)
    same = math.isnan(found.low) or found.low == found.high
    return (f"{found.value:.4f}" + ("" if same else f"  {found.low:.4f} to {found.high:.4f}")).ljust(26)

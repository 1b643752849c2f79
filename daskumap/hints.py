"""What name was meant: the nearest one, or ours for what other programs call it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What umap-learn, cuML, openTSNE, scikit-learn, scanpy and plain speech call it -> ours; the first that the
# function has.
OURS: dict[str, tuple[str, ...]] = {
    "n_neighbors": ("neighbors", "neighbours", "k", "n_nearest", "perplexity", "knn_k"),
    "n_components": ("dims", "n_dims", "dim", "dimensions", "output_dims", "d"),
    "n_epochs": ("epochs", "n_iter", "n_iterations", "iterations", "max_iter", "maxiter"),
    "min_dist": ("mindist", "minimum_distance"),
    "random_state": ("seed", "random_seed", "rng", "state"),
    "seed": ("random_state", "random_seed"),
    "scheduler": ("client",),
    "metric": ("distance", "distance_metric", "affinity", "dissimilarity", "similarity"),
    "metric_kwds": ("metric_params", "metric_kwargs", "metric_args"),
    "learning_rate": ("lr", "eta", "initial_alpha"),
    "negative_sample_rate": ("negative_samples", "n_negatives", "neg_samples", "negative_sampling_rate"),
    "repulsion_strength": ("gamma", "exaggeration"),
    "init": ("initialization", "initialisation", "init_pos", "initial_embedding", "start"),
    "precomputed_knn": ("knn", "knn_graph", "neighbors_graph", "precomputed_neighbors"),
    "run": ("path", "store", "output", "out_dir", "run_store"),
    "out": ("run_store", "output", "target"),
    "data": ("X", "x", "array", "input", "rows", "source"),
    "progress": ("verbose", "tqdm", "progress_bar", "disable_tqdm"),
    "threads": ("n_jobs", "n_threads", "num_threads", "nthreads", "num_workers", "jobs", "cores"),
    "n_jobs": ("n_threads", "num_threads", "threads"),
    "workers": ("n_workers",),
    "client": ("scheduler", "dask_client", "address"),
    "memory": ("memory_limit", "mem", "max_memory", "allowed_mem", "ram"),
    "restart": ("overwrite", "force", "clear"),
    "color": ("colour", "c", "hue", "labels", "values", "label"),
    "theme": ("background", "style"),
    "size": ("width", "height", "figsize", "pixels"),
    "columns": ("column", "cols", "features"),
    "storage_options": ("fs_options", "credentials", "filesystem_options"),
}
# Names of umap-learn's and cuML's that mean nothing here, and why.
NOT_HERE: dict[str, str] = {
    **dict.fromkeys(
        ("target_n_neighbors", "target_metric", "target_metric_kwds", "target_weight", "y"),
        "supervision is not in this version",
    ),
    **dict.fromkeys(
        ("densmap", "dens_lambda", "dens_frac", "dens_var_shift", "output_dens"),
        "densMAP is not in this version",
    ),
    **dict.fromkeys(
        ("low_memory", "angular_rp_forest", "force_approximation_algorithm", "transform_queue_size"),
        "it tunes a search that daskumap does without",
    ),
    **dict.fromkeys(
        ("build_algo", "build_kwds", "hash_input", "handle", "data_on_host", "callback", "output_type"),
        "it is about a GPU, which daskumap does without",
    ),
    "transform_seed": "new rows are placed by the seed of the fit",
    "tqdm_kwds": "progress is shown in a way of its own",
}


def nearest(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return the names that are meant by a word, the likeliest first; none where no name is near.

    Parameters
    ----------
    known
        Names there are, with underscores or dashes as the word has them.
    """
    names = {_plain(name): name for name in known}
    plain = _plain(word)
    called = [ours for ours, others in OURS.items() if plain in others and ours in names]
    near = difflib.get_close_matches(plain, names, most)
    return [names[name] for name in dict.fromkeys([*called, *near])][:most]


def hint(words: Iterable[str], known: Iterable[str]) -> str:
    """Return what is meant by words that no name is, as sentences with a blank behind each; or nothing."""
    words, known = list(words), list(known)
    near = dict.fromkeys(name for word in words if word not in NOT_HERE for name in nearest(word, known))
    meant = [f"Did you mean {', '.join(map(repr, near))}? "] if near else []
    return "".join([*meant, *(f"Leave {word} out: {NOT_HERE[word]}. " for word in words if word in NOT_HERE)])


def _plain(word: str) -> str:
    return str(word).lstrip("-").replace("-", "_")

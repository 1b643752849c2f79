"""The dense metrics of pynndescent 0.7 and umap-learn: names, spellings, keywords and domains. Data only."""

from daskumap.kernels.neighbors.scores import ANGLE, HALF, HALF_SQRT, SQRT, SQUARE

# name -> (canonical name, space, how a squared distance in it becomes the metric's)
SPACES = {
    "euclidean": ("euclidean", "identity", SQRT),
    "l2": ("euclidean", "identity", SQRT),
    "sqeuclidean": ("sqeuclidean", "identity", SQUARE),
    "seuclidean": ("seuclidean", "scaled", SQRT),
    "standardised_euclidean": ("seuclidean", "scaled", SQRT),
    "mahalanobis": ("mahalanobis", "linear", SQRT),
    "cosine": ("cosine", "unit", HALF),
    "direct_cosine": ("cosine", "unit", HALF),
    "dot": ("dot", "unit", HALF),
    "true_angular": ("true_angular", "unit", ANGLE),
    "correlation": ("correlation", "centred_unit", HALF),
    "spearmanr": ("spearmanr", "ranked_unit", HALF),
    "hellinger": ("hellinger", "root_unit", HALF_SQRT),
    "softmax_hellinger": ("softmax_hellinger", "root_softmax", HALF_SQRT),
}
# Spaces of unit vectors, in which some rows have no direction.
DIRECTIONS = ("unit", "centred_unit", "ranked_unit", "root_unit")
# name -> canonical name, evaluated by the function of that name in `functions`, or in pynndescent
OTHERS = {
    name: group[0]
    for group in (
        ("manhattan", "taxicab", "l1"),
        ("chebyshev", "linfinity", "linfty", "linf"),
        ("minkowski",),
        ("wminkowski", "weighted_minkowski"),
        ("canberra",),
        ("inner_product",),
        ("haversine",),
        ("braycurtis",),
        ("tsss",),
        ("kantorovich", "wasserstein"),
        ("wasserstein_1d", "wasserstein-1d", "kantorovich-1d", "kantorovich_1d"),
        ("circular_kantorovich", "circular_wasserstein"),
        ("sinkhorn",),
        ("jensen_shannon", "jensen-shannon"),
        ("symmetric_kl", "symmetric-kl", "symmetric_kullback_liebler"),
        ("hamming",),
        ("jaccard",),
        ("dice",),
        ("matching",),
        ("kulsinski",),
        ("rogerstanimoto",),
        ("russellrao",),
        ("sokalsneath",),
        ("sokalmichener",),
        ("yule",),
        ("bit_hamming",),
        ("bit_jaccard",),
        ("poincare",),
        ("hyperboloid",),
        ("ll_dirichlet",),
    )
    for name in group
}
# canonical name -> (keyword, other spellings, default; None: required), in the order of pynndescent's
# arguments
KEYWORDS: dict[str, tuple[tuple[str, tuple[str, ...], float | None], ...]] = {
    "minkowski": (("p", (), 2.0),),
    "wminkowski": (("w", (), None), ("p", (), 2.0)),
    "seuclidean": (("V", ("sigma",), None),),
    "mahalanobis": (("VI", ("vinv",), None),),
    "kantorovich": (("cost", (), None), ("max_iter", (), 100_000)),
    "sinkhorn": (("cost", (), None), ("regularization", (), 1.0)),
    "wasserstein_1d": (("p", (), 1.0),),
    "circular_kantorovich": (("p", (), 1.0),),
}
ARRAYS = {"w": 1, "V": 1, "VI": 2, "cost": 2}
DISTRIBUTIONS = {
    "hellinger",
    "kantorovich",
    "wasserstein_1d",
    "circular_kantorovich",
    "sinkhorn",
    "jensen_shannon",
    "symmetric_kl",
    "ll_dirichlet",
}
NEED_MASS = DISTRIBUTIONS - {"jensen_shannon", "symmetric_kl"}
# canonical name -> d, where all values times c make all distances times c^d; others have no such d.
DEGREES = {
    **dict.fromkeys(("euclidean", "seuclidean", "mahalanobis", "manhattan", "chebyshev"), 1),
    **dict.fromkeys(("minkowski", "wminkowski"), 1),
    **dict.fromkeys(("sqeuclidean", "inner_product"), 2),
    **dict.fromkeys(("cosine", "dot", "true_angular", "correlation", "spearmanr", "hellinger"), 0),
    **dict.fromkeys(("canberra", "braycurtis", "hamming", "matching", "jaccard", "dice", "kulsinski"), 0),
    **dict.fromkeys(("rogerstanimoto", "russellrao", "sokalsneath", "sokalmichener", "yule"), 0),
}
# Distances that stay when all rows are moved by the same vector.
TRANSLATED = {
    "euclidean",
    "sqeuclidean",
    "seuclidean",
    "mahalanobis",
    "manhattan",
    "chebyshev",
    "minkowski",
    "wminkowski",
    "hamming",
}

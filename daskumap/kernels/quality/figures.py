"""Measures of a map: what the neighbour search found, what the embedding kept, what flew away.

All take arrays and give a number. Neighbour lists never hold the row itself; -1 marks a missing neighbour.
"""

from typing import Any

import numpy as np

from daskumap.kernels.quality.neighbors import READ_ROWS, Ids, blocks, embedding_neighbors


def recall(found_ids: Ids, exact_ids: Ids) -> float:
    """Return the mean share of the exact neighbours that the search found.

    Parameters
    ----------
    found_ids
        (q, m) int64, what the search found for each of q rows, in any order; -1 marks a missing neighbour.
    exact_ids
        (q, k) int64, the exact neighbours. `m` may differ from `k`.

    Returns
    -------
    float
        In [0, 1]; nan where there is no exact neighbour at all.
    """
    found_ids, exact_ids = np.asarray(found_ids), np.asarray(exact_ids)
    hits, asked = 0, 0
    # Blocks, because the comparison makes q * k * m booleans.
    step = max(1, 16_777_216 // max(1, found_ids.shape[1] * exact_ids.shape[1]))
    for start in range(0, len(exact_ids), step):
        exact = exact_ids[start : start + step]
        same = (exact[:, :, None] == found_ids[start : start + step, None, :]).any(axis=2)
        hits += int(np.count_nonzero(same & (exact >= 0)))
        asked += int(np.count_nonzero(exact >= 0))
    return hits / asked if asked else float("nan")


def preservation(high_ids: Ids, low_ids: Ids) -> float:
    """Return the mean share of the input's k nearest neighbours that are among the embedding's k nearest.

    Parameters
    ----------
    high_ids, low_ids
        (q, k) int64 each: exact neighbours of the same q rows in the input and in the embedding.

    References
    ----------
    Lee and Verleysen (2009), Q_NX(k) at one k.
    """
    if np.shape(high_ids) != np.shape(low_ids):
        raise ValueError(f"shapes differ: high_ids {np.shape(high_ids)}, low_ids {np.shape(low_ids)}")
    return recall(low_ids, high_ids)


def trustworthiness_from_ranks(ranks: Ids, n: int, k: int) -> float:
    """Estimate trustworthiness from the input-space ranks of the embedding's neighbours.

    With q = n it is scikit-learn's `trustworthiness`; with a sample of q rows it is its unbiased estimate.

    Parameters
    ----------
    ranks
        (q, k) int64, 1-based rank in the input space, among the other n - 1 rows, of each neighbour in the
        embedding.
    n
        Rows of the whole data set. The normalisation holds for n > 2 k and is not defined for n <= 1.5 k.

    References
    ----------
    Venna and Kaski (2001).
    """
    ranks = np.asarray(ranks, dtype=np.int64)
    if ranks.ndim != 2 or ranks.shape[1] != k:
        raise ValueError(f"ranks must be (q, {k}), got {ranks.shape}")
    if 2 * n - 3 * k - 1 <= 0:
        raise ValueError(f"trustworthiness needs 2 n > 3 k + 1, got n = {n}, k = {k}")
    if not len(ranks):
        return float("nan")
    penalty = float(np.maximum(ranks - k, 0).sum())
    return 1.0 - 2.0 * penalty / (len(ranks) * k * (2.0 * n - 3.0 * k - 1.0))


def flyaway_ratio(embedding: Any) -> float:
    """Return the largest radius over the 99th percentile of the radii, about the component-wise median.

    Near 1 for a compact map; 50 where a hub was thrown out. Rows with NaN are left out. Keeps 8 bytes a row.

    Parameters
    ----------
    embedding
        (n, d) floating point, anything that slices.

    Returns
    -------
    float
        At least 1; nan for no rows, inf where more than 99 % of the rows coincide and some do not.
    """
    n, d = embedding.shape
    squared = np.zeros(n, dtype=np.float32)
    column = np.empty(n, dtype=np.float32)
    for j in range(d):
        for start, block in blocks(embedding, READ_ROWS):
            column[start : start + len(block)] = block[:, j]
        known = column[~np.isnan(column)]
        if not len(known):
            return float("nan")
        column -= np.median(known)
        squared += column * column
    squared = squared[~np.isnan(squared)]
    if not len(squared):
        return float("nan")
    radius = np.sqrt(squared, out=squared)
    largest, usual = float(radius.max()), float(np.percentile(radius, 99))
    if usual > 0:
        return largest / usual
    return float("inf") if largest > 0 else 1.0


def knn_accuracy(embedding: Any, labels: Any, k: int = 15, sample_rows: Ids | None = None) -> float:
    """Return the leave-one-out accuracy of a k-nearest-neighbour vote in the embedding.

    Ties go to the smallest label, as in scikit-learn. A negative label means unlabelled: no vote.

    Parameters
    ----------
    labels
        (n,) integer, in memory.
    sample_rows
        (q,) int64, the rows to ask for; all by default.
    """
    labels = np.asarray(labels)
    rows = np.arange(len(labels)) if sample_rows is None else np.asarray(sample_rows)
    rows = rows[labels[rows] >= 0]
    if not len(rows):
        return float("nan")
    ids, _ = embedding_neighbors(embedding, rows, k)
    return float(np.mean(winners(np.where(ids >= 0, labels[ids], -1)) == labels[rows]))


def winners(votes: Ids) -> Ids:
    """Return the label that most of each row's votes name, (q,) int64; ties go to the smallest.

    Parameters
    ----------
    votes
        (q, k) int64; negative is no vote.
    """
    votes = np.sort(votes, axis=1)
    counts = sum((votes == votes[:, c : c + 1]).astype(np.int64) for c in range(votes.shape[1])) * (
        votes >= 0
    )
    # Votes are sorted, and argmax takes the first of equals: the smallest label.
    found: Ids = votes[np.arange(len(votes)), counts.argmax(axis=1)]
    return found

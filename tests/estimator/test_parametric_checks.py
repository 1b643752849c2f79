"""scikit-learn's own checks of the parametric estimator, all of them."""

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from daskumap import ParametricUMAP


def cheap():
    """Return an estimator whose training is as short as one can be."""
    return ParametricUMAP(steps=3, hidden=(4,), batch_edges=20, random_state=1)


# It asks for another library of arrays; an estimator over NumPy and Zarr has no use for one.
NOT_ABOUT_US = {"check_array_api_input"}
CHECKS = [
    check
    for _, check in estimator_checks_generator(cheap())
    if getattr(check, "func", check).__name__ not in NOT_ABOUT_US
]


@pytest.mark.filterwarnings("ignore:n_neighbors is larger than the dataset")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: getattr(check, "func", check).__name__)
def test_what_scikit_learn_asks_of_an_estimator(check):
    check(cheap())

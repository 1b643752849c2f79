"""scikit-learn's own checks of an estimator, all of them."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from daskumap import UMAP


@parametrize_with_checks([UMAP(n_epochs=3, client="sequential")])
def test_what_scikit_learn_asks_of_an_estimator(estimator, check):
    check(estimator)

"""The estimator of scikit-learn's kind, in place of umap-learn's."""

"""docs/compatibility.md: every name of umap-learn's, each with a test that there is."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import umap

from daskumap import UMAP
from daskumap.estimator.accept import NO_EFFECT, NOT_YET
from daskumap.kernels.metrics.names import OTHERS, SPACES

ROOT = Path(__file__).parents[2]
STATUSES = {"same", "different", "no effect", "not yet", "not kept"}
# As estimators have them, beside what a class of umap-learn says itself.
INHERITED = {"get_feature_names_out", "get_params", "set_params", "get_metadata_routing"}


def sections():
    """Return the rows of the tables by heading: names, status, text, test."""
    found = {}
    for part in (ROOT / "docs/compatibility.md").read_text().split("\n## ")[1:]:
        rows = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) ?\| (.*?) ?\|$", part, re.MULTILINE)
        found[part.partition("\n")[0]] = [(re.findall("`(.+?)`", row[0]), *row[1:]) for row in rows]
    return found


def names(section):
    """Return all names of a table; none is there twice."""
    found = [name for row in sections()[section] for name in row[0]]
    assert len(found) == len(set(found))
    return set(found)


def test_every_parameter_is_there_in_order():
    assert [row[0] for row in sections()["Parameters"]] == [
        [name] for name in inspect.signature(umap.UMAP).parameters
    ]


def test_every_method_is_there():
    own = {
        name
        for name, one in vars(umap.UMAP).items()
        if callable(one) or name.startswith("set_")
        if not name.startswith("_") or name in ("__add__", "__mul__", "__sub__", "__repr__")
    }
    assert names("Methods") == own | INHERITED


def test_every_attribute_is_there():
    """Whatever a method of umap-learn's writes: to fit with densMAP takes minutes to compile."""
    written = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(umap.UMAP)))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.value.id == "self"
    }
    theirs = written - inspect.signature(umap.UMAP).parameters.keys()
    assert names("Attributes") == theirs | {"n_features_in_", "feature_names_in_"}


def test_every_metric_is_there():
    """Or it is said that it is not."""
    text = next(row[2] for row in sections()["Parameters"] if row[0] == ["metric"])
    missing = umap.distances.named_distances.keys() - SPACES.keys() - OTHERS.keys()
    assert missing == set(re.findall('"(.+?)"', text))


def test_statuses_are_true(small):
    """What the table says is there is there, and what it says is not is not."""
    found = sections()
    said = {row[0][0]: row[1] for row in found["Parameters"]}
    assert {name for name, status in said.items() if status == "not yet"} == NOT_YET.keys()
    assert {name for name, status in said.items() if status == "no effect"} == set(NO_EFFECT)
    model = UMAP(n_epochs=[1]).fit(small)
    model.feature_names_in_ = np.array([])  # of a DataFrame alone
    for row in found["Methods"] + found["Attributes"]:
        for name in row[0]:
            assert hasattr(model, name) == (row[1] in ("same", "different")), name


def test_each_row_has_a_status_and_a_test():
    written = " ".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"def (test_\w+)\(", written))
    for heading, rows in sections().items():
        for listed, status, _, test in rows:
            assert status in STATUSES, listed
            shown = re.findall("`(.+?)`", test)
            assert set(shown) <= tests, listed
            assert shown or (heading != "Parameters" and status in ("not yet", "not kept")), listed
    text = (ROOT / "docs/compatibility.md").read_text()
    assert set(re.findall(r"`(test_\w+)`", text)) <= tests

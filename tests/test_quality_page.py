"""docs/quality.md: its code runs as it stands, the example of real pictures where these are installed."""

import pytest
from test_pages import code_of

from daskumap.errors import DaskumapError
from daskumap.testing.datasets import fashion_mnist

# Where the example of real pictures begins and ends.
REAL, REST = "pictures = fashion_mnist()", "few = slice(0, 500)"


def parts():
    code = code_of("quality.md").splitlines()
    first, last = code.index(REAL), code.index(REST)
    blank = [""] * len(code)
    return [
        "\n".join(code[:first] + blank[first:last] + code[last:]),
        "\n".join(code[:last] + blank[last:]),
    ]


def run(code):
    exec(compile(code, "quality.md", "exec"), {"__name__": "quality.md"})


@pytest.mark.processes
def test_the_page_runs_as_written():
    small, _ = parts()
    assert small.count("assert") > 10
    run(small)


@pytest.mark.processes
def test_the_example_of_real_pictures_runs_as_written():
    try:
        fashion_mnist()
    except DaskumapError as error:
        pytest.skip(str(error))
    _, real = parts()
    assert real.count("assert") > 8
    run(real)

"""Pictures of maps through matplotlib: what is drawn, what is named, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

import daskumap
from daskumap import plot
from daskumap.cli.main import main
from daskumap.errors import ParameterError, SourceNotFoundError, StoreError
from daskumap.kernels.layout.lines import add_lines
from daskumap.report.colours import OKABE_ITO, of_classes
from daskumap.report.picture import LIGHT, THEMES

ROWS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("plot")


@pytest.fixture(scope="module")
def run(folder):
    X = load_digits().data[:ROWS].astype(np.float32)
    return daskumap.fit(
        X, folder / "run.zarr", client="sequential", progress=False, report=False, n_epochs=60, random_state=1
    )


@pytest.fixture(scope="module")
def classes():
    return np.array([f"digit {c}" for c in load_digits().target[:ROWS]])


def image_of(ax):
    (image,) = ax.images
    return np.asarray(image.get_array())


def colour_at(ax, place):
    """Return the colour of the raster at a place of the map."""
    left, right, low, high = ax.images[0].get_extent()
    image = image_of(ax)
    column = int((place[0] - left) / (right - left) * image.shape[1])
    line = int((high - place[1]) / (high - low) * image.shape[0])
    return image[line, column]


def test_rows_have_the_colour_that_the_legend_names(run, classes):
    ax = plot.points(run, classes)
    shown = {
        text.get_text(): handle.get_color()
        for text, handle in zip(ax.get_legend().get_texts(), ax.get_legend().legend_handles, strict=True)
    }
    assert list(shown) == [
        f"{name} ({n})" for name, n in zip(*np.unique(classes, return_counts=True), strict=True)
    ]
    named = {name.split(" (")[0]: np.array(colour) * 255 for name, colour in shown.items()}
    right = [
        min(named, key=lambda n: np.abs(named[n] - colour_at(ax, place)).sum()) == name
        for place, name in zip(run.embedding[:], classes, strict=True)
    ]
    assert np.mean(right) > 0.9  # Where classes overlap a pixel is of both.


def test_names_stand_at_the_centres(run, classes):
    ax = plot.points(run, classes, legend="centres")
    where = {text.get_text(): text.get_position() for text in ax.texts}
    for name in np.unique(classes):
        np.testing.assert_allclose(
            where[name], np.median(run.embedding[:][classes == name], axis=0), rtol=1e-5
        )


def test_values_have_a_bar(run):
    values = np.arange(ROWS, dtype=float)
    values[:5] = np.nan
    ax = plot.points(run, values)
    bar = next(other for other in ax.figure.axes if other is not ax)
    assert bar.get_ylim() == pytest.approx(tuple(np.nanquantile(values, (0.002, 0.998))))
    low, high = colour_at(ax, run.embedding[10]), colour_at(ax, run.embedding[ROWS - 1])
    assert high.astype(int).sum() > low.astype(int).sum()


def test_density_needs_no_colour(run):
    assert (image_of(plot.density(run)) == image_of(plot.points(run))).all()
    assert (image_of(plot.density(run)) != LIGHT.ground).any()


@pytest.mark.parametrize("theme", THEMES)
def test_themes(run, classes, theme):
    image = image_of(plot.points(run, classes, theme=theme))
    assert image.shape[2] == (4 if theme == "transparent" else 3)
    corner = image[0, 0, 3] if theme == "transparent" else tuple(image[0, 0])
    assert corner == (0 if theme == "transparent" else THEMES[theme].ground)


def test_few_rows_among_many_are_seen():
    """300 of 200,000 rows in the midst of the others."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(200_000, 2)).astype(np.float32)
    names = np.full(len(places), "many")
    names[:300] = "few"
    places[:300] = rng.normal(0, 0.1, (300, 2)) + 0.5
    image = image_of(plot.points(places, names, size=600)).astype(int)
    few, many = of_classes(2, LIGHT.ground).astype(int)  # In the order of their names.
    nearer = np.abs(image - few).sum(axis=2) < np.abs(image - many).sum(axis=2)
    ground = (image == LIGHT.ground).all(axis=2)
    assert (nearer & ~ground).sum() > 0.001 * image.shape[0] * image.shape[1]


def test_palettes_tell_apart_what_they_can():
    palette = of_classes(256, LIGHT.ground)
    assert len(np.unique(palette, axis=0)) == 256
    assert tuple(map(tuple, palette[:8].tolist())) == OKABE_ITO
    np.testing.assert_array_equal(of_classes(40, LIGHT.ground), palette[:40])
    with pytest.raises(ValueError, match="0 to 256"):
        of_classes(257, LIGHT.ground)


def test_where_colours_come_from(run, classes, tmp_path):
    expected = image_of(plot.points(run, classes))
    np.save(tmp_path / "c.npy", classes)
    frame = pd.DataFrame({"kind": classes, "other": np.arange(ROWS)})
    frame.to_csv(tmp_path / "c.csv")
    frame.to_parquet(tmp_path / "c.parquet")
    for color in (tmp_path / "c.npy", f"{tmp_path}/c.csv:kind", f"{tmp_path}/c.parquet:kind", frame["kind"]):
        np.testing.assert_array_equal(image_of(plot.points(run, color)), expected)
    with pytest.raises(ParameterError, match="columns kind, other"):
        plot.points(run, tmp_path / "c.parquet")
    with pytest.raises(SourceNotFoundError, match="no file and no column of the run"):
        plot.points(run, "cell_type")


def test_a_column_of_labels(tmp_path, classes):
    frame = pd.DataFrame(load_digits().data[:ROWS]).add_prefix("x")
    frame.index = pd.Index(classes, name="kind")
    frame.to_parquet(tmp_path / "rows.parquet")
    run = daskumap.fit(
        tmp_path / "rows.parquet",
        tmp_path / "run.zarr",
        client="sequential",
        progress=False,
        report=False,
        n_epochs=0,
        random_state=1,
    )
    assert {text.get_text() for text in plot.points(run, "kind", legend="centres").texts} == set(classes)
    with pytest.raises(SourceNotFoundError, match=r"The run has the columns .*kind"):
        plot.points(run, "class")


def test_edges_are_drawn_where_they_are(run):
    ax = plot.connectivity(run)
    graph = run.graph().tocoo()
    assert ax.get_title(loc="left") == f"{graph.nnz // 2:,} edges of {ROWS} rows"
    strongest = graph.data.argmax()
    middle = run.embedding[:][[graph.row[strongest], graph.col[strongest]]].mean(axis=0)
    assert tuple(colour_at(ax, middle)) != LIGHT.ground


def test_lines():
    raster = np.zeros((6, 8))
    ends = np.array(
        [[0.5, 1.5, 6.5, 1.5], [2.5, 0.5, 2.5, 3.5], [np.nan, 0.0, 1.0, 1.0], [-9.0, -9.0, -1.0, -1.0]]
    )
    add_lines(raster, *ends.T.copy(), np.array([7.0, 8.0, 1.0, 1.0]))
    expected = np.zeros((6, 8))
    expected[1, :7] += 1
    expected[:4, 2] += 2
    np.testing.assert_allclose(raster, expected)


def test_diagnostics(run):
    made = plot.diagnostic(run)
    assert isinstance(made, Figure)
    maps = [ax for ax in made.axes if ax.images]
    assert [ax.get_title(loc="left") for ax in maps] == ["neighborhood", "local_dim", "radius", "pca"]
    near = [
        NearestNeighbors(n_neighbors=14).fit(rows).kneighbors(return_distance=False)
        for rows in (load_digits().data[:ROWS], run.embedding[:])
    ]
    kept = np.array([len(np.intersect1d(a, b)) / 14 for a, b in zip(*near, strict=True)])
    from daskumap.plot import diagnostics

    np.testing.assert_allclose(np.mean(diagnostics._neighborhood(run, None)), kept.mean(), atol=0.02)
    assert 3 < np.nanmedian(diagnostics._local_dim(run, None)) < 15
    with pytest.raises(ParameterError, match="kind is 'ica'; allowed are neighborhood"):
        plot.diagnostic(run, "ica")
    with pytest.raises(ParameterError, match="the run of a fit is needed"):
        plot.diagnostic(run.embedding[:])


def test_several_maps_say_in_what_they_differ(run, classes):
    other = daskumap.fit(run, min_dist=0.5, client="sequential", progress=False, report=False)
    made = plot.multiples([run, other], classes)
    assert [ax.get_title(loc="left") for ax in made.axes] == ["min_dist 0.1", "min_dist 0.5"]
    assert [ax.get_legend() is not None for ax in made.axes] == [False, True]


@pytest.mark.parametrize(
    ("name", "magic"),
    [("m.png", b"\x89PNG"), ("m.svg", b"<?xml"), ("m.pdf", b"%PDF"), ("m.jpg", b"\xff\xd8")],
)
def test_the_format_follows_the_name(run, tmp_path, name, magic):
    ax = run.plot()
    first = plot.save(ax, tmp_path / name).read_bytes()
    assert first.startswith(magic)
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_an_unknown_format_is_refused(run, tmp_path):
    with pytest.raises(ParameterError, match=r"ends in '.gif'; pictures are .png, .svg, .pdf, .jpg"):
        plot.save(run.plot(), tmp_path / "m.gif")
    assert not list(tmp_path.iterdir())


def test_tiles_show_the_map(run, classes, tmp_path):
    out = plot.tiles(run, tmp_path / "t", classes, levels=3)
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert found[0] == "0/0/0.png"
    limits = json.loads((out / "tiles.json").read_text())["limits"]
    # Each row lies on a tile that is there.
    (left, _), (_, high) = limits
    side = (limits[0][1] - left) / 0.92
    for x, y in run.embedding[:]:
        column = int((x - left + 0.04 * side) / side * 4)
        line = int((high - y + 0.04 * side) / side * 4)
        assert f"2/{column}/{line}.png" in found
    with pytest.raises(StoreError, match="not empty"):
        plot.tiles(run, out)
    with pytest.raises(ParameterError, match="levels is 9"):
        plot.tiles(run, tmp_path / "u", levels=9)


def test_mistakes(run):
    with pytest.raises(ParameterError, match=r"color has the shape \(3,\)"):
        plot.points(run, [1, 2, 3])
    with pytest.raises(ParameterError, match="more than 256 classes"):
        plot.points(run, [f"c{i}" for i in range(ROWS)])
    with pytest.raises(ParameterError, match="theme is 'blue'; allowed are dark, light"):
        plot.points(run, theme="blue")
    with pytest.raises(ParameterError, match="legend is 'left'"):
        plot.points(run, legend="left")


def test_the_command(run, folder, classes, tmp_path, capsys):
    np.save(tmp_path / "c.npy", classes)
    assert (
        main(
            [
                "plot",
                str(folder / "run.zarr"),
                str(tmp_path / "m.svg"),
                "--color",
                str(tmp_path / "c.npy"),
                "--json",
            ]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["picture"] == str(tmp_path / "m.svg")
    assert "digit 3 (" in (tmp_path / "m.svg").read_text() or b"digit" in (tmp_path / "m.svg").read_bytes()
    assert main(["plot", str(folder / "run.zarr"), str(tmp_path / "m.gif")]) == 2
    assert "pictures are .png" in capsys.readouterr().err

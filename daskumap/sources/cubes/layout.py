"""Which dimensions of a cube are samples, and which columns its variables become."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from daskumap.errors import SourceError
from daskumap.sources.cubes.variables import Variable

Names = str | Sequence[str] | None


@dataclass(frozen=True)
class Layout:
    """How a cube lies as rows and columns.

    Attributes
    ----------
    sample_dims, shape
        Names and sizes of the dimensions whose points are rows, the last one fastest.
    feature_dims
        Names, by variable, of the dimensions whose points are its columns, the last one fastest.
    offsets
        The first column of each variable, and the number of columns.
    """

    sample_dims: tuple[str, ...]
    shape: tuple[int, ...]
    feature_dims: tuple[tuple[str, ...], ...]
    offsets: tuple[int, ...]

    @property
    def points(self) -> int:
        """Number of points of the sample dimensions, those with missing values too."""
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        """Number of features."""
        return self.offsets[-1]

    @property
    def line(self) -> int:
        """Number of points that share an index of the first sample dimension."""
        return math.prod(self.shape[1:])


def lay_out(variables: Sequence[Variable], sample_dims: Names, feature_dim: Names) -> Layout:
    """Return the layout of some variables, as far as it can be told without a guess.

    Parameters
    ----------
    sample_dims, feature_dim
        One name or several; None for those that the other one does not name. With neither, a matrix has
        samples first, and several variables of the same dimensions are the features themselves.

    Raises
    ------
    SourceError
        If the dimensions do not fit, listing those that there are.
    """
    sizes = _sizes(variables)
    samples, features = _names("sample_dims", sample_dims, sizes), _names("feature_dim", feature_dim, sizes)
    if samples is None and features is None:
        samples = _obvious(variables, sizes)
    if samples is None:
        samples = tuple(dim for dim in sizes if dim not in (features or ()))
    if features is None:
        features = tuple(dim for dim in sizes if dim not in samples)
    if both := [dim for dim in samples if dim in features]:
        raise SourceError(f"{both[0]!r} is among sample_dims and feature_dim. Name it once.")
    if not samples:
        raise SourceError(
            f"feature_dim names all dimensions, {', '.join(sizes)}; none is left whose points are rows."
        )
    own = tuple(_features_of(variable, samples, features) for variable in variables)
    offsets = [0]
    for dims in own:
        offsets.append(offsets[-1] + math.prod(sizes[dim] for dim in dims))
    return Layout(samples, tuple(sizes[dim] for dim in samples), own, tuple(offsets))


def _sizes(variables: Sequence[Variable]) -> dict[str, int]:
    """Return the sizes of all dimensions, in the order of the variable that has most of them."""
    sizes: dict[str, int] = {}
    for variable in sorted(variables, key=lambda one: -len(one.dims)):
        if len(set(variable.dims)) < len(variable.dims):
            raise SourceError(
                f"Variable {variable.name!r} has a dimension twice: {variable.dims}. Rename one."
            )
        for dim, size in zip(variable.dims, variable.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise SourceError(
                    f"Dimension {dim!r} of variable {variable.name!r} has {size} points, that of others has "
                    f"{sizes[dim]}. Choose variables of one grid with the option variables."
                )
    return sizes


def _names(option: str, given: Names, sizes: dict[str, int]) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = (given,) if isinstance(given, str) else tuple(map(str, given))
    unknown = [name for name in names if name not in sizes]
    if unknown or len(set(names)) < len(names):
        seen = f"names {unknown[0]!r}" if unknown else f"is {names}, with a name twice"
        raise SourceError(f"{option} {seen}; the dimensions are {_listed(sizes)}.")
    return names


def _obvious(variables: Sequence[Variable], sizes: dict[str, int]) -> tuple[str, ...]:
    dims = variables[0].dims
    if len(variables) > 1 and all(set(one.dims) == set(dims) for one in variables):
        return dims
    if len(variables) == 1 and len(dims) == 2:
        return dims[:1]
    raise SourceError(
        f"The cube has the dimensions {_listed(sizes)}, and any of them may be features. Say which: "
        f"daskumap.source(data, feature_dim={next(iter(sizes), 'time')!r}), or on the command line "
        "--source-option feature_dim=NAME."
    )


def _features_of(variable: Variable, samples: tuple[str, ...], features: tuple[str, ...]) -> tuple[str, ...]:
    lacking = [dim for dim in samples if dim not in variable.dims]
    if lacking:
        raise SourceError(
            f"Variable {variable.name!r} has the dimensions {', '.join(variable.dims) or 'none'} and lacks "
            f"{', '.join(lacking)} of the sample dimensions. Leave it out with the option variables."
        )
    own = tuple(dim for dim in variable.dims if dim not in samples)
    if over := [dim for dim in own if dim not in features]:
        raise SourceError(
            f"Variable {variable.name!r} has the dimension {over[0]!r}, which is neither among sample_dims "
            f"{samples} nor feature_dim {features}. Add it to one of them, or select one point of it first."
        )
    return own


def _listed(sizes: dict[str, int]) -> str:
    return ", ".join(f"{dim} ({size})" for dim, size in sizes.items()) or "none"

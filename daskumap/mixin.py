"""What the estimators have in common beside scikit-learn's base."""

from __future__ import annotations

from typing import Any

from daskumap.params import refuse_unknown


class OwnEstimator:
    """A mixin: names of parameters are refused with a hint, and a notebook shows the map of a fitted one."""

    _run: Any

    def set_params(self, **params: Any) -> Any:
        """Set parameters, by name.

        Raises
        ------
        ParameterError
            For an unknown name; what is set already stays.
        """
        refuse_unknown(params, super().get_params(deep=False))  # type: ignore[misc]
        return super().set_params(**params)  # type: ignore[misc]

    def _repr_html_inner(self) -> str:
        return str(super()._repr_html_inner()) + self._shown()  # type: ignore[misc]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        if "text/html" in bundle:
            bundle["text/html"] += self._shown()
        return bundle

    def _shown(self) -> str:
        """Return what is below scikit-learn's diagram."""
        run = getattr(self, "_run", None)
        if run is None:
            return ""
        from daskumap.page.notebook import summary  # and all that reads a run, which an import does without

        return summary(run)

"""The text of a job file: YAML or JSON, with values of the environment in it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from daskumap.errors import ParameterError

NAMED = re.compile(r"\$\{([A-Za-z_]\w*)\}")


class Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML as of version 1.2, which people mean: PyYAML reads `on:` as true, 1e-3 as a text, 010 as 8.

    A key that stands twice is refused, and so is one that is no text or number.
    """

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012, as PyYAML has it

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping, in which each key stands once."""
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} stands twice in one mapping", key.start_mark
                )
            seen.add(key.value)
        return dict(super().construct_mapping(node, deep))


TAG = "tag:yaml.org,2002:"
for kind, pattern, begin in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", "~|null|Null|NULL|", "~nN"),
    ("int", r"[-+]?\d[\d_]*", "-+0123456789"),
    ("float", r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)([eE][-+]?\d+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("merge", "<<", "<"),
):
    Loader.add_implicit_resolver(
        TAG + kind, re.compile(f"^(?:{pattern})$"), [*begin, ""] if kind == "null" else list(begin)
    )
Loader.add_constructor(f"{TAG}int", lambda loader, node: int(loader.construct_scalar(node).replace("_", "")))


def load(path: Path) -> dict[str, Any]:
    """Return what a file holds.

    Raises
    ------
    ParameterError
        If it cannot be read, or is no mapping.
    """
    try:
        text = path.read_bytes()
        found = (
            json.loads(text, object_pairs_hook=_once) if path.suffix == ".json" else yaml.load(text, Loader)
        )
    except OSError as error:
        raise ParameterError(
            f"The job file {path} cannot be read: {error.strerror}. Name another."
        ) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise ParameterError(f"{path} is no {kind}: {error}. See docs/nightly.md for job files.") from error
    if not isinstance(found, dict):
        what = "nothing" if found is None else f"a {type(found).__name__}"
        raise ParameterError(f"{path} holds {what}; a job file is a mapping with at least source and run.")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"{key!r} stands twice in one mapping")
    return dict(pairs)


class Environment:
    """Puts values of the environment in the place of ${NAME}, and takes them out of messages again.

    Attributes
    ----------
    used
        Which name each value has that was put into a text.
    """

    def __init__(self, called: str, replaced: Mapping[str, str] | None) -> None:
        self.called, self.replaced = called, dict(replaced or {})
        self.used: dict[str, str] = {}

    def fill(self, found: dict[str, Any]) -> dict[str, Any]:
        """Return a mapping whose texts are filled.

        Raises
        ------
        ParameterError
            If a name has no value, or a mapping holds itself.
        """
        try:
            return {key: self._filled(item) for key, item in found.items()}
        except RecursionError as error:
            raise ParameterError(f"{self.called} has a mapping or list that holds itself.") from error

    def _filled(self, item: Any) -> Any:
        if isinstance(item, dict):
            return {key: self._filled(one) for key, one in item.items()}
        if isinstance(item, list):
            return [self._filled(one) for one in item]
        if not isinstance(item, str):
            return item
        for text, other in self.replaced.items():
            item = item.replace(text, other)
        return NAMED.sub(self._value, item)

    def _value(self, name: re.Match[str]) -> str:
        value = os.environ.get(name[1])
        if value is None:
            raise ParameterError(
                f"{self.called} names {name[0]}, and the environment has no {name[1]}. Set it where the job "
                "is started, as by Environment= of systemd or a line of the crontab."
            )
        self.used[value] = name[0]
        return value


def hide_used(text: str, used: Mapping[str, str]) -> str:
    """Return text in which values of the environment are their names again; very short ones hide nothing.

    >>> hide_used("no host key-12345", {"key-12345": "${KEY}", "no": "${NO}"})
    'no host ${KEY}'
    """
    for value in sorted(used, key=len, reverse=True):
        if len(value) > SHORT:
            text = text.replace(value, used[value])
    return text


# Of fewer characters is no password, and much else is like it.
SHORT = 3

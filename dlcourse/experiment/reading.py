"""A YAML file read strictly: a key that is misspelt or stands twice is an error.

PyYAML alone would not do: of two equal keys it keeps the last in silence, it takes `1e-4` for a text (YAML 1.1 wants a
dot in a number) and `off` for a boolean. Here a file is read by YAML 1.2's core rules, and its keys are held against the
fields of `Experiment` before a value is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, get_type_hints

import yaml  # type: ignore[import-untyped]

from dlcourse.experiment.config import ConfigError, Experiment, nearest

CONFIGS = Path(__file__).parent / "configs"
NUMBER = r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"


def packaged() -> list[str]:
    """The names of the configs that come with the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def find_config(name: str) -> Path:
    """The file of a config. Raises ConfigError, with the nearest packaged name, when there is none."""
    if (path := Path(name)).is_file():
        return path
    if name in packaged():
        return CONFIGS / f"{name}.yaml"
    if path.is_dir() or path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ConfigError(f"there is no config file {name}")
    raise ConfigError(f"there is no config {name!r}; did you mean {nearest(name, packaged())!r}? Or give a YAML file.")


def read_config(path: Path) -> dict[str, Any]:
    """The values of a config file, nested. Raises ConfigError, with the line, for what the module's text names."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return read_yaml(text, str(path), Experiment) or {}


def read_yaml(text: str, source: str = "the value", kind: Any = None) -> Any:
    """YAML by the core rules of 1.2, no key twice; with `kind`, a dataclass, its fields and no other key."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, kind, (), source)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{source}{line} is not YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{source} is not YAML: {error}") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Numbers, true, false and null as YAML 1.2 has them; all else is text: `1e-4` is a number, `off` is not false."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own, replaced)


for _tag, _pattern in (
    ("null", "~|null|Null|NULL|"),
    ("bool", "true|True|TRUE|false|False|FALSE"),
    ("int", "[-+]?(?:0|[1-9][0-9]*)"),
    ("float", NUMBER),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), None)


def _check(node: yaml.Node, kind: Any, path: tuple[str, ...], source: str) -> None:
    """Hold the keys of a node against the fields of a dataclass (None: any keys), and each against the others."""
    where = f"{source}, line {node.start_mark.line + 1}"
    if is_dataclass(kind) and not isinstance(node, yaml.MappingNode):
        keys = ", ".join(part.name for part in fields(kind))
        raise ConfigError(f"{where}: {'.'.join(path) or 'the config'} must be keys with values ({keys}), not a single value")
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check(item, None, path, source)
    if not isinstance(node, yaml.MappingNode):
        return
    hints = get_type_hints(kind) if is_dataclass(kind) else {}
    seen: dict[str, int] = {}
    for key_node, value in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{source}, line {line}: a key must be a name")
        full = ".".join((*path, key_node.value))
        if key_node.value in seen:
            raise ConfigError(f"{source}, line {line}: {full} stands twice (first in line {seen[key_node.value]})")
        seen[key_node.value] = line
        if is_dataclass(kind) and key_node.value not in hints:
            raise ConfigError(f"{source}, line {line}: there is no {full}; did you mean {nearest_key(full)}?")
        _check(value, hints.get(key_node.value), (*path, key_node.value), source)


def known_keys(kind: Any = Experiment, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of an experiment with its type, nested ones as "optimizer.lr"."""
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from known_keys(hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint


def groups() -> list[str]:
    """The keys that hold others: "model", "optimizer" …"""
    return [name for name, hint in get_type_hints(Experiment).items() if is_dataclass(hint)]


def nearest_key(key: str, known: Sequence[str] | None = None) -> str:
    """The known key that is most like this one, as a whole or in its last part ("lr" is "optimizer.lr")."""

    def likeness(other: str) -> tuple[float, float]:
        whole = SequenceMatcher(None, key.lower(), other).ratio()
        last = SequenceMatcher(None, key.lower().rpartition(".")[2], other.rpartition(".")[2]).ratio()
        return max(whole, last), whole

    return max(known or [*(name for name, _ in known_keys()), *groups()], key=likeness)

"""Flags and a config file become an `Experiment`: jsonargparse makes a flag of each field and checks the types.

Its messages are put into words here, and name the nearest known flag.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from argparse import SUPPRESS, ArgumentError
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_loader

from dlcourse.experiment.config import ConfigError, Experiment, nearest
from dlcourse.experiment.reading import find_config, groups, known_keys, nearest_key, packaged, read_config, read_yaml

MODE = "dlcourse"  # jsonargparse's name for a way to read values
KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null", dict: "a mapping"}

set_loader(MODE, read_yaml, (ConfigError,))


def load_config(config: str | Path | None = None, flags: Sequence[str] = ()) -> Experiment:
    """The experiment of a config (a packaged name or a YAML file; None: the defaults) with flags that change values.

        load_config("fashion-mini", ["--training.epochs", "2"])

    As `dlcourse train --config fashion-mini --training.epochs 2` reads it. Raises ConfigError, which says where and
    names the nearest known one, for a config or key that does not exist, a key that stands twice, a value of a wrong
    type and a value that nothing would read.
    """
    parser = Parser(print_config=None)
    add_experiment(parser)
    return experiment_of(parser.parse_args([*([] if config is None else ["--config", str(config)]), *flags]))


def add_experiment(parser: Parser) -> None:
    """Give a parser `--config` and a flag for each value of an experiment."""
    parser.add_argument(
        "--config", action=_ReadConfig, help=f"a YAML file of the values below, or one of {', '.join(packaged())}"
    )
    parser.add_class_arguments(Experiment)
    kinds = {"Experiment": Experiment, **{name: hint for name, hint in get_type_hints(Experiment).items() if name in groups()}}
    sections = parser.groups or {}
    for name, kind in kinds.items():
        sections[name].title = (kind.__doc__ or name).splitlines()[0].rstrip(".")
        texts = field_texts(kind)
        for part in fields(kind):
            action = next(a for a in parser._actions if a.dest == (part.name if kind is Experiment else f"{name}.{part.name}"))
            # With a group jsonargparse would read a file.
            action.help = SUPPRESS if part.name in groups() else texts.get(part.name, "").replace("%", "%%") or None


def field_texts(kind: Any) -> dict[str, str]:
    """The docstring under each field of a dataclass that has one."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    return {
        ast.unparse(entry.target): inspect.cleandoc(str(text.value.value)).replace("\n", " ")
        for entry, text in pairwise(body)
        if isinstance(entry, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def experiment_of(given: Namespace) -> Experiment:
    """The experiment in what a parser with `add_experiment` returned."""
    return build(Experiment, {part.name: given[part.name] for part in fields(Experiment)})


def build(kind: Any, values: dict[str, Any]) -> Any:
    """A dataclass of nested plain values."""
    hints = get_type_hints(kind)
    made = {}
    for name, value in values.items():
        value = value.as_dict() if isinstance(value, Namespace) else value
        made[name] = build(hints[name], value) if is_dataclass(hints[name]) else value
    return kind(**made)




class Parser(ArgumentParser):
    """A parser that raises ConfigError with a sentence where argparse would print its usage and exit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"print_config": None, "parser_mode": MODE, "allow_abbrev": False, "exit_on_error": False, **options})

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Namespace:  # type: ignore[override]
        if args is not None and self._subcommands_action is None:
            args = _checked(list(args), groups() if "Experiment" in (self.groups or {}) else [])
        try:
            return super().parse_args(args, *rest, **options)
        except ArgumentError as error:
            raise ConfigError(str(error)) from None

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise ConfigError(self._in_words(message)) from None

    def _in_words(self, message: str) -> str:
        flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        if found := re.match(r"unrecognized arguments: (.*)", message, re.DOTALL):
            word = found[1].split()[0].partition("=")[0]
            if not word.startswith("--"):
                return f"what is {found[1]!r}? this command takes no such argument"
            return f"there is no {word}; did you mean --{nearest_key(word[2:], [flag[2:] for flag in flags])}?"
        if found := re.match(r'Parser key "([^"]+)":\s+(.*)', message, re.DOTALL):
            action = next((action for action in self._actions if action.dest == found[1]), None)
            return f"{found[1]}: {_wrong_value(getattr(action, '_typehint', getattr(action, 'type', None)), found[2])}"
        if found := re.match(r"argument \S+: invalid choice: '(.*?)' \(choose from (.*)\)", message):
            known = re.findall(r"[\w-]+", found[2])
            return f"there is no command {found[1]!r}; did you mean {nearest(found[1], known)!r}?"
        if found := re.search(r"option '(.*?)'|'(.*?)' is not accepted", message):
            key = found[1] or found[2]
            return f"there is no {key}; did you mean {nearest_key(key)}?"
        return message


class _ReadConfig(ActionConfigFile):
    """`--config`: a packaged name or a file, held against the fields before jsonargparse sees it."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        path = find_config(values)
        read_config(path)  # complains
        super().__call__(parser, cfg, str(path), option_string)


def _checked(args: list[str], groups: list[str]) -> list[str]:
    """The arguments with --config in front, so that every flag changes it.

    Raises ConfigError for a flag that is given twice, one that is a group of others, and a mapping with a key twice.
    """
    names = Counter(arg.partition("=")[0] for arg in args if arg.startswith("--"))
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(f"{twice[0]} is given twice")
    for group in [name for name in names if name[2:] in groups]:
        within = [f"--{key}" for key, _ in known_keys() if key.startswith(f"{group[2:]}.")]
        raise ConfigError(f"{group} is a group of values: give {', '.join(within)}")
    for flag, value in _values(args):
        if value.startswith(("{", "[")):
            read_yaml(value, flag)
    for position, arg in enumerate(args):
        if arg == "--config" or arg.startswith("--config="):
            end = position + (2 if arg == "--config" else 1)
            return args[position:end] + args[:position] + args[end:]
    return args


def _values(args: list[str]) -> Iterator[tuple[str, str]]:
    """Each flag with its value, given as "--flag value" or "--flag=value"."""
    for arg, following in zip(args, [*args, ""][1:], strict=True):
        if arg.startswith("--"):
            flag, equals, value = arg.partition("=")
            yield flag, value if equals else following


def _wrong_value(hint: Any, message: str) -> str:
    """jsonargparse's complaint of a value's type, in words."""
    found = re.search(r"Got value: (.*)|Given value: (.*)|invalid .* value: '(.*)'", message, re.DOTALL)
    if hint is None or found is None:
        return message
    value = next(text for text in found.groups() if text is not None).strip()
    if get_origin(hint) is Literal:
        words = [str(word) for word in get_args(hint)]
        return f"{value!r} is not one of {', '.join(words)}; did you mean {nearest(value, words)!r}?"
    kinds = [hint] if get_origin(hint) is dict else get_args(hint) or [hint]
    return f"{value!r} is not {' or '.join(KINDS.get(get_origin(kind) or kind, str(kind)) for kind in kinds)}"

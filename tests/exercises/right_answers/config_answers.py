"""Right answers to the exercise on configs, in other styles than the reference's."""

import dataclasses
import difflib
import inspect
import typing

from planting import right_answer


@right_answer("config.typed_values")
def by_signature(kind, values):
    parameters = inspect.signature(kind).parameters
    hints = typing.get_type_hints(kind)
    if unknown := set(values) - set(parameters):
        key = sorted(unknown)[0]
        best = max(parameters, key=lambda name: difflib.SequenceMatcher(None, name, key).ratio())
        raise ValueError(f"{key} is not known, {best} is")
    made = {}
    for name, parameter in parameters.items():
        if name not in values:
            if parameter.default is inspect.Parameter.empty:
                raise ValueError(f"give {name}")
            continue
        value, wanted = values[name], hints[name]
        wrong = ValueError(f"{name}: {wanted.__name__} wanted, got {value!r}")
        if wanted is float:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise wrong
            try:
                made[name] = float(value)
            except ValueError as error:
                raise wrong from error
        elif (wanted is int and isinstance(value, bool)) or not isinstance(value, wanted):
            raise wrong
        else:
            made[name] = value
    return kind(**made)


READERS = {
    int: lambda value: value if type(value) is int else None,
    bool: lambda value: value if value is True or value is False else None,
    str: lambda value: value if isinstance(value, str) else None,
    float: lambda value: None if isinstance(value, bool) else float(value),
}


@right_answer("config.typed_values")
def by_a_table_of_readers(kind, values):
    made = {}
    for part in dataclasses.fields(kind):
        if part.name in values:
            try:
                made[part.name] = READERS[part.type](values[part.name])
            except (ValueError, TypeError):
                made[part.name] = None
            if made[part.name] is None:
                raise ValueError(f"{part.name} must be a {part.type.__name__}")
        elif part.default is dataclasses.MISSING:
            raise ValueError(f"{part.name}?")
    for key in values:
        if key not in made:
            raise ValueError(f"{key}: did you mean {difflib.get_close_matches(key, [p.name for p in dataclasses.fields(kind)])[0]}")
    return kind(**made)


@right_answer("config.typed_values")
def by_replacing_defaults(kind, values):
    names = {part.name: part for part in dataclasses.fields(kind)}
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, list(names), n=1, cutoff=0.1)
            raise ValueError(f"there is no {key!r}: {near[0]!r} is near")
    for name in [name for name, part in names.items() if part.default is dataclasses.MISSING]:
        if name not in values:
            raise ValueError(f"missing: {name}")

    def one(name, value):
        match (names[name].type.__name__, value):
            case ("bool", bool()) | ("str", str()):
                return value
            case ("int" | "float", bool()):
                pass
            case ("int", int()):
                return value
            case ("float", int() | float()):
                return float(value)
            case ("float", str()):
                try:
                    return float(value)
                except ValueError:
                    pass
        raise ValueError(f"{name}={value!r} does not fit")

    return kind(**{name: one(name, value) for name, value in values.items()})

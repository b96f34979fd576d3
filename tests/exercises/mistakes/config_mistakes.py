"""Wrong answers to the exercise on configs."""

from dataclasses import MISSING, asdict, fields
from difflib import get_close_matches

from planting import mistake

NUMBER = (int, float, str)


def read(
    kind, values, convert=None, unknown="nearest", missing="say", convertible=NUMBER, strict=lambda value, wanted: type(value) is wanted,
):  # fmt: skip
    """A right answer with one part replaced."""
    types = {part.name: part.type for part in fields(kind)}
    found = {}
    for key in [part.name for part in fields(kind) if part.default is MISSING]:
        if key not in values and missing == "say":
            raise ValueError(f"{key} is missing")
    for key, value in values.items():
        if key not in types:
            if unknown == "skip":
                continue
            if unknown == "nearest":
                raise ValueError(f"{key}: unknown, did you mean {get_close_matches(key, types, 1, 0)[0]}?")
            if unknown == "first":
                raise ValueError(f"{key}: unknown, did you mean {next(iter(types))}?")
            if unknown == "list":
                raise ValueError(f"{key}: unknown; there are {', '.join(types)}")
            raise ValueError(unknown.format(key))
        wanted = types[key]
        if convert is not None:
            found[key] = convert(wanted, value)
        elif wanted is float and type(value) in convertible:
            try:
                found[key] = float(value)
            except ValueError:
                raise ValueError(f"{key} is no number") from None
        elif strict(value, wanted):
            found[key] = value
        else:
            raise ValueError(f"{key} has a wrong type")
    return kind(**found)


@mistake("config.typed_values", says=r"leaves a number as the text.*'lr': '1e-4'.*lr is '1e-4' where 0\.0001")
def hands_over(kind, values):
    return kind(**values)


@mistake("config.typed_values", says=r"leaves a whole number in a float field as an int.*lr is 1 where 1\.0")
def only_texts_are_converted(kind, values):
    return read(kind, values, convert=lambda wanted, value: float(value) if wanted is float and isinstance(value, str) else value)


@mistake("config.typed_values", says=r"raises ValueError for .*must be a float")
def refuses_whole_numbers(kind, values):
    def convert(wanted, value):
        if wanted is float and type(value) is int:
            raise ValueError("must be a float")
        return float(value) if wanted is float else value

    return read(kind, values, convert=convert)


@mistake("config.typed_values", says=r"turns a text into a number: the field says str.*folder")
def every_text_that_is_a_number(kind, values):
    def convert(wanted, value):
        try:
            return value if type(value) is bool else (float if wanted is not int else int)(value)
        except ValueError:
            return value

    return read(kind, values, convert=convert)


@mistake("config.typed_values", says=r"lets .*'epochs': '3'.* through; epochs becomes 3\. .*may not come as a text")
def casts(kind, values):
    return read(kind, values, convert=lambda wanted, value: wanted(value))


@mistake("config.typed_values", says=r"lets .*'epochs': 2\.5.* through")
def whole_numbers_by_rounding(kind, values):
    return read(kind, values, strict=lambda value, wanted: isinstance(value, wanted) or (wanted is int and type(value) is float))


@mistake("config.typed_values", says=r"lets .*'epochs': True.* through; epochs becomes True.*isinstance\(True, int\)")
def by_isinstance(kind, values):
    return read(kind, values, strict=isinstance)


@mistake("config.typed_values", says=r"lets .*'lr': True.* through; lr becomes 1\.0")
def true_is_a_number(kind, values):
    return read(kind, values, convertible=(int, float, str, bool))


@mistake("config.typed_values", says=r"ValueError for .*'lr': 'fast'.* does not name the key 'lr'")
def the_error_of_float(kind, values):
    return read(kind, values, convert=lambda wanted, value: float(value) if wanted is float and type(value) in NUMBER else _exact(wanted, value))


def _exact(wanted, value):
    if type(value) is not wanted:
        raise ValueError("epochs, lr, nesterov or model has a wrong type" if value != "fast" else "wrong")
    return value


@mistake("config.typed_values", says=r"raises TypeError for .*'lr': None.*an empty value is no number")
def converts_whatever_comes(kind, values):
    def convert(wanted, value):
        try:
            return float(value) if wanted is float and value is not True else _exact(wanted, value)
        except ValueError:
            raise ValueError("epochs or lr has a wrong type") from None

    return read(kind, values, convert=convert)


@mistake("config.typed_values", says=r"lets .*'nesterov': 'no'.* through; nesterov becomes True")
def bool_of_a_text(kind, values):
    clean = {k: bool(v) if k in ("nesterov", "shuffle") else v for k, v in values.items()}
    return read(kind, clean)


@mistake("config.typed_values", says=r"lets .*'nesterov': 1.* through; nesterov becomes 1\. .*1 is not yes or no")
def one_is_true(kind, values):
    return read(kind, values, strict=lambda value, wanted: type(value) is wanted or (wanted is bool and type(value) is int))


@mistake("config.typed_values", says=r"lets .*'model': False.* through.*bare word off")
def text_of_anything(kind, values):
    return read(kind, values, strict=lambda value, wanted: type(value) is wanted or wanted is str)


@mistake("config.typed_values", says=r"raises TypeError for .*\{'lr': 0\.1\}.*it has no default")
def leaves_missing_to_python(kind, values):
    return read(kind, values, missing="python")


@mistake("config.typed_values", says=r"lets .*\{'lr': 0\.1\}.* through; epochs becomes None")
def fills_missing_with_none(kind, values):
    empty = {part.name: None for part in fields(kind) if part.default is MISSING and part.name not in values}
    found = read(kind, {**{name: 1 if name == "epochs" else 0.0 if name == "fraction" else "" for name in empty}, **values})
    return kind(**{**asdict(found), **empty})


@mistake("config.typed_values", says="loses a field's default")
def loses_defaults(kind, values):
    found = asdict(read(kind, values))
    return kind(**{name: value if name in values else None for name, value in found.items()})


@mistake("config.typed_values", says=r"lets .*weight_deacy.* through\. Refuse")
def skips_unknown_keys(kind, values):
    return read(kind, values, unknown="skip")


@mistake("config.typed_values", says=r"unknown key 'weight_deacy' without naming the nearest field alone, 'weight_decay': 'weight_deacy\?'")
def names_no_nearest(kind, values):
    return read(kind, values, unknown="{}?")


@mistake("config.typed_values", says="without naming the nearest field alone.*did you mean epochs")
def names_the_first(kind, values):
    return read(kind, values, unknown="first")


@mistake("config.typed_values", says="without naming the nearest field alone.*there are epochs, lr")
def lists_all(kind, values):
    return read(kind, values, unknown="list")


@mistake("config.typed_values", says="does not name the key 'weight_deacy'")
def an_error_without_the_key(kind, values):
    return read(kind, values, unknown="unknown key")


@mistake("config.typed_values", says=r"returns \{'epochs': 3.*instance of Training is asked for")
def a_dictionary(kind, values):
    return asdict(read(kind, values))


@mistake("config.typed_values", says="It changes its input")
def empties_the_values(kind, values):
    found = read(kind, dict(values))
    values.clear()
    return found

"""The model card: what must travel with the weights so that a file is all that a user needs.

Model cards: Mitchell et al. 2018 (arXiv:1810.03993). Here the card is also what the code reads: the names of the classes
and the preprocessing stand in it, as JSON, inside the exported file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dlcourse.data import Preprocessing

KEY = "dlcourse"
"""Under this name an exported file holds the card in its metadata."""
FORMAT = 1


@dataclass(frozen=True)
class ModelCard:
    """Classes, preprocessing, and whatever else a user should know of a model.

        card = ModelCard(train.classes, eval_transform(32), name="clothing", details={"test accuracy": 0.87})

    `details` holds plain JSON values: data, metrics, licence, intended use. Raises ValueError for classes that are not
    distinct names, at least two, for details that JSON cannot hold, and for a preprocessing that is not one.
    """

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    name: str = "model"
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes={self.classes} must be distinct names, at least two")
        if not all(isinstance(name, str) and name.strip() for name in self.classes):
            raise ValueError(f"classes={self.classes} must be names, none of them empty")
        if not isinstance(self.preprocessing, Preprocessing):
            raise ValueError(
                f"preprocessing is a {type(self.preprocessing).__name__}, not a Preprocessing: eval_transform(size)"
            )
        try:
            json.dumps(dict(self.details), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"details must be what JSON can hold: {error}") from None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(3, size, size) of one image as it goes into the network."""
        return (3, self.preprocessing.size, self.preprocessing.size)

    def to_json(self) -> str:
        """The card as JSON; `from_json` reads it again."""
        return json.dumps(
            {
                "format": FORMAT,
                "name": self.name,
                "classes": list(self.classes),
                "preprocessing": asdict(self.preprocessing),
                "details": dict(self.details),
            },
            ensure_ascii=False,
            allow_nan=False,
        )

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read a card. Raises ValueError, with what is wrong, for anything that `to_json` would not write."""
        try:
            found = json.loads(text, parse_constant=_refuse)
            if found["format"] > FORMAT:
                raise ValueError(
                    f"its format is {found['format']}, this dlcourse reads up to {FORMAT}: upgrade dlcourse"
                )
            values = {**found["preprocessing"]}
            for name in ("mean", "std"):
                values[name] = tuple(float(number) for number in values[name])
                if not all(map(math.isfinite, values[name])):
                    raise ValueError(f"{name}={values[name]} is not finite")
            return cls(tuple(found["classes"]), Preprocessing(**values), str(found["name"]), dict(found["details"]))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"the model card cannot be read: {reason}") from error


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number that JSON has")

"""The model card: what is written is what is read, and nothing else is taken for one."""

import json

import pytest

from dlcourse.data import Preprocessing, eval_transform
from dlcourse.deployment import ModelCard

CARD = ModelCard(
    ("Bär", "cat"), eval_transform(8, mean=(0.1, 0.2, 0.3)), name="zoo", details={"accuracy": 0.5, "data": None}
)


def test_a_card_comes_back_from_its_json_as_it_was():
    again = ModelCard.from_json(CARD.to_json())
    assert again == CARD
    assert again.preprocessing == Preprocessing(8, None, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5), "bilinear")
    assert again.input_shape == (3, 8, 8)


def test_a_list_of_classes_is_taken_too():
    assert ModelCard(["a", "b"], eval_transform(8)).classes == ("a", "b")


@pytest.mark.parametrize(
    ("classes", "preprocessing", "details", "says"),
    [
        (("a",), eval_transform(8), {}, "at least two"),
        (("a", "a"), eval_transform(8), {}, "distinct"),
        (("a", " "), eval_transform(8), {}, "none of them empty"),
        (("a", 3), eval_transform(8), {}, "must be names"),
        (("a", "b"), 8, {}, r"preprocessing is a int.*eval_transform\(size\)"),
        (("a", "b"), eval_transform(8), {"x": float("nan")}, "what JSON can hold"),
        (("a", "b"), eval_transform(8), {"x": object()}, "what JSON can hold"),
    ],
)
def test_what_is_no_card_is_refused(classes, preprocessing, details, says):
    with pytest.raises(ValueError, match=says):
        ModelCard(classes, preprocessing, details=details)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda card: card.pop("classes"), "'classes' is missing"),
        (lambda card: card.update(format=99), "upgrade dlcourse"),
        (lambda card: card["preprocessing"].update(size=0), "size=0"),
        (lambda card: card["preprocessing"].update(size="8"), "size='8'"),
        (lambda card: card["preprocessing"].update(mean=[1, 2]), "three numbers"),
        (lambda card: card["preprocessing"].update(std=[0, 0, 0]), "positive"),
        (lambda card: card["preprocessing"].update(mean=["a", 1, 1]), "could not convert"),
        (lambda card: card["preprocessing"].update(interpolation="magic"), "interpolation='magic' is unknown"),
        (lambda card: card["preprocessing"].update(resize=2), "resize=2 is less than size=8"),
        (lambda card: card["preprocessing"].update(surprise=1), "surprise"),
        (lambda card: card.update(classes=["a"]), "at least two"),
        (lambda card: card.update(details=[1]), "cannot be read"),
    ],
)
def test_a_damaged_card_says_what_is_wrong(change, says):
    card = json.loads(CARD.to_json())
    change(card)
    with pytest.raises(ValueError, match=f"the model card cannot be read: .*{says}|{says}"):
        ModelCard.from_json(json.dumps(card))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"format": NaN}', "[" * 5000])
def test_what_is_no_json_of_a_card_is_a_value_error(text):
    with pytest.raises(ValueError, match="the model card cannot be read"):
        ModelCard.from_json(text)

"""Every number that a page states is computed, or at least written in code, on that page."""

import re

import pytest
from reading import NOTEBOOKS, notebook_id

# Numbers with a decimal point, a thousands separator or at least three digits: small counts are words of the sentence.
NUMBER = re.compile(r"(?<![\w.])\d{1,3}(?:,\d{3})+(?!\d)|(?<![\w.])\d+\.\d+(?![\w.])|(?<![\w.,])\d{3,}(?![\w,]*\d)")
NOT_PROSE = [
    r"```.*?```",  # a block of code or shell
    r"`[^`]*`",  # names and expressions
    r"\]\([^)]*\)",  # the target of a link
    r"<[^>]*>",  # HTML
    r"arXiv:\S+",
    r"\b(19|20)\d\d\b",  # a year
    r"https?://\S+",
    r"\b\d+ minutes\b",  # an estimate: the README's table and the exercises' registration hold it
]


def prose_numbers(source: str) -> list[str]:
    for pattern in NOT_PROSE:
        source = re.sub(pattern, " ", source, flags=re.DOTALL)
    return [number.replace(",", "") for number in NUMBER.findall(source.replace("−", "-"))]


def computed_numbers(notebook) -> set[float]:
    text = "\n".join(cell.source + "\n" + cell.text_output for cell in notebook.code).replace("_", "")
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    return {float(number) for number in re.findall(r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", text)}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=notebook_id)
def test_numbers_in_prose_come_from_the_page(notebook):
    computed = computed_numbers(notebook)
    in_sources, missing = False, []
    for cell in notebook.prose:
        in_sources = in_sources or cell.source.startswith("## Sources")
        if not in_sources:
            missing += [f"cell {cell.number}: {n}" for n in prose_numbers(cell.source) if float(n) not in computed]
    assert missing == []


def test_what_counts_as_a_number():
    text = "SimpleCNN has 553,514 parameters (`n = 777`), He et al. (2015), arXiv:1512.03385, 0.5 each, 12 of 1000. See v2.9.1."
    assert prose_numbers(text) == ["553514", "0.5", "1000"]

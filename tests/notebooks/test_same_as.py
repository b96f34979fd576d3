"""Shown once, then imported: what a page shows in full is the package's code, and no page shows it twice."""

import ast
import importlib
import inspect
import textwrap
from collections import Counter

import pytest
from reading import NOTEBOOKS

SHOWN = [
    pytest.param(cell, target, id=f"{notebook.path.stem}-{target}")
    for notebook in NOTEBOOKS
    for cell in notebook.code
    for target in cell.tagged("same-as")
]


class _Normalise(ast.NodeTransformer):
    """Drop docstrings and annotations, the two things in which a page may differ from the package."""

    def _without_docstring(self, node):
        self.generic_visit(node)
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
        return node

    visit_ClassDef = _without_docstring

    def visit_FunctionDef(self, node):
        node.returns = None
        node.type_params = []
        return self._without_docstring(node)

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        self.generic_visit(node)
        if node.value is None:  # a dataclass field: its annotation is what makes it one
            node.annotation = ast.Constant(None)
            return node
        return ast.Assign(targets=[node.target], value=node.value)


def normalised(source: str) -> str:
    module = ast.parse(textwrap.dedent(source))
    definitions = [node for node in module.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    if len(definitions) != 1 or len(module.body) != 1:
        raise ValueError("a cell tagged same-as holds one definition and nothing else")
    return ast.dump(_Normalise().visit(definitions[0]), indent=1)


def resolve(target: str):
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("cell", "target"), SHOWN)
def test_the_page_shows_the_packages_code(cell, target):
    assert normalised(cell.source) == normalised(inspect.getsource(resolve(target)))


def test_nothing_is_shown_in_full_twice():
    counts = Counter(parameter.values[1] for parameter in SHOWN)
    assert [target for target, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.path.stem)
def test_a_definition_with_a_name_of_the_package_is_the_packages(notebook):
    """A learner who meets `evaluate` on a page and in the package must meet one function, not two."""
    public = {}
    areas = ("data", "data.mixing", "diagnostics", "training.finetune", "training.schedules", "training.tuning", "models", "models.layers", "models.attention", "models.vit", "models.resnet", "models.mobilenet_v1",
             "models.mobilenet_v2", "models.mobilenet_v3", "models.efficientnet", "training", "training.losses", "deployment",
             "deployment.drift", "deployment.observing", "deployment.ab", "experiment",
             "evaluation", "plotting", "runtime")  # fmt: skip
    for area in areas:
        module = importlib.import_module(f"dlcourse.{area}")
        public |= {name: f"dlcourse.{area}" for name in dir(module) if not name.startswith("_")}
    exercise_stubs = {cell.number for cell in notebook.code if cell.tagged("exercise")}
    for cell in notebook.code:
        if cell.number in exercise_stubs or cell.tagged("same-as"):
            continue
        for node in cell.tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                assert node.name not in public, f"cell {cell.number} defines {node.name}, a name of {public[node.name]}"


def test_the_comparison_sees_a_difference_and_only_that():
    page = 'def f(x):\n    """Page."""\n    return x + 1\n'
    assert normalised(page) == normalised('def f(x: int) -> int:\n    """Package.\n\n    More."""\n    return x + 1\n')
    assert normalised(page) != normalised("def f(x):\n    return x + 2\n")
    assert normalised("class A:\n    n: int = 3\n") == normalised("class A:\n    n = 3\n")
    with pytest.raises(ValueError, match="one definition"):
        normalised("def f():\n    pass\nf()\n")

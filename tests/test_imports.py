"""Imports point downward only (the package's layers), and `import dlcourse` costs little more than `import torch`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dlcourse"
MODULES = {path.relative_to(PACKAGE): path for path in sorted(PACKAGE.rglob("*.py"))}

# What each part may import of the package, itself aside. `exercises` may use anything, and nothing uses it.
ALLOWED = {
    "runtime": {"plotting"},  # `setup` sets the plot style
    "data": {"runtime"},
    "plotting": set(),
    "evaluation": {"runtime"},
    "models": {"runtime", "data"},  # published weights come with the preprocessing that they need
    "training": {"runtime", "data", "evaluation"},
    "diagnostics": {"runtime", "data", "evaluation", "training"},
    "deployment": {"runtime", "data", "evaluation", "models", "training", "plotting"},
}
ALLOWED["experiment"] = set(ALLOWED)  # a whole training from one config
ALLOWED["commands"] = set(ALLOWED)
ALLOWED["cli"] = set(ALLOWED)
ALLOWED["__main__"] = {"cli"}
ALLOWED["recipes"] = {"runtime", "data"}
ANYTHING = {"exercises", "__init__"}

HEAVY = {
    "albumentations",
    "fastapi",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "optuna",
    "pandas",
    "seaborn",
    "sklearn",
    "tensorboard",
    "timm",
    "uvicorn",
}
MAY_USE_TORCHVISION = {"data"}
MAY_COST_MILLISECONDS = 50


def part_of(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def imported(nodes, module: Path) -> set[str]:
    """Full names of what import statements load: "torch.nn", "dlcourse.data.loaders" …, relative ones resolved."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ("dlcourse", *module.parent.parts)
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *filter(None, [node.module])))
            names |= {f"{stem}.{alias.name}" for alias in node.names}
    return names


def runs_on_import(tree: ast.AST):
    """The nodes that run when the module is imported: not the bodies of functions, not those for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from runs_on_import(node)


def parts_used(source: str, module: Path) -> set[str]:
    names = imported(ast.walk(ast.parse(source)), module)
    parts = {name.split(".")[1] for name in names if name.startswith("dlcourse.")}
    known = {part_of(each) for each in MODULES}
    return (parts & known) - {part_of(module)} | {"runtime" for name in parts - known}  # `from dlcourse import expect`


def heavy_on_import(source: str, module: Path) -> set[str]:
    roots = {name.split(".")[0] for name in imported(runs_on_import(ast.parse(source)), module)}
    roots |= (
        {"tensorboard"}
        if any("tensorboard" in n for n in imported(runs_on_import(ast.parse(source)), module))
        else set()
    )
    forbidden = HEAVY if part_of(module) in MAY_USE_TORCHVISION else HEAVY | {"torchvision"}
    return roots & forbidden


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_downward(module):
    part = part_of(module)
    if part not in ANYTHING:
        assert parts_used(MODULES[module].read_text(encoding="utf-8"), module) <= ALLOWED[part]


@pytest.mark.parametrize("module", [m for m in MODULES if part_of(m) != "exercises"], ids=str)
def test_nothing_uses_the_exercises(module):
    assert "exercises" not in parts_used(MODULES[module].read_text(encoding="utf-8"), module)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_heavy_libraries_are_imported_where_they_are_used(module):
    assert heavy_on_import(MODULES[module].read_text(encoding="utf-8"), module) == set()


def test_these_tests_see_what_they_look_for():
    upward = "def train():\n    from dlcourse.models import create_model\n    from ..exercises import check\n"
    assert parts_used(upward, Path("training/engine.py")) == {"models", "exercises"}
    assert parts_used("from . import losses\nfrom ..data.mixing import mixup\n", Path("training/engine.py")) == {"data"}
    assert parts_used("import dlcourse.models.vit as vit\nfrom dlcourse import expect\n", Path("data/a.py")) == {
        "models",
        "runtime",
    }
    heavy = "import torchvision\nfrom torch.utils.tensorboard import SummaryWriter\nclass A:\n    import pandas as pd\n"
    assert heavy_on_import(heavy, Path("training/a.py")) == {"torchvision", "tensorboard", "pandas"}
    assert heavy_on_import(heavy, Path("data/a.py")) == {"tensorboard", "pandas"}
    light = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas\ndef f():\n    import sklearn.metrics\n"
    )
    assert heavy_on_import(light, Path("evaluation/a.py")) == set()


def in_a_fresh_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_loads_no_heavy_library():
    loaded = set(
        in_a_fresh_process("import dlcourse, sys; print(*{name.split('.')[0] for name in sys.modules})").split()
    )
    assert "torch" in loaded
    assert loaded & {*HEAVY, "torchvision", "IPython", "ipywidgets"} == set()


def test_importing_the_package_costs_little_more_than_torch():
    """Measured in one process each, torch first: two separate imports of torch differ by more than what is asked for."""
    code = "import torch, time; a = time.perf_counter(); import dlcourse; print(1000 * (time.perf_counter() - a))"
    assert min(float(in_a_fresh_process(code)) for _ in range(3)) <= MAY_COST_MILLISECONDS

"""The stored notebooks as the tests read them: cells with their tags, and what the tests need to know of each."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cell:
    number: int  # from 1, over all cells
    kind: str  # "code" or "markdown"
    source: str
    tags: tuple[str, ...]
    outputs: tuple[dict[str, Any], ...]
    execution_count: int | None

    def tagged(self, prefix: str) -> list[str]:
        """What follows "prefix:" in the tags of this cell."""
        return [tag.removeprefix(prefix + ":") for tag in self.tags if tag.startswith(prefix + ":")]

    @property
    def tree(self) -> ast.Module:
        return ast.parse(
            "\n".join(line for line in self.source.splitlines() if not line.lstrip().startswith(("%", "!")))
        )

    @property
    def text_output(self) -> str:
        """Everything the cell printed or displayed as text."""
        parts = [output.get("text", output.get("data", {}).get("text/plain", "")) for output in self.outputs]
        return "\n".join("".join(part) for part in parts)


@dataclass(frozen=True)
class Notebook:
    path: Path

    @property
    def chapter(self) -> int:
        return int(self.path.name[:2])

    @cached_property
    def cells(self) -> list[Cell]:
        return [
            Cell(
                number,
                cell["cell_type"],
                "".join(cell["source"]),
                tuple(cell["metadata"].get("tags", ())),
                tuple(cell.get("outputs", ())),
                cell.get("execution_count"),
            )
            for number, cell in enumerate(json.loads(self.path.read_text(encoding="utf-8"))["cells"], 1)
        ]

    @property
    def code(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == "code"]

    @property
    def prose(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.kind == "markdown"]

    def section(self, heading: str) -> str:
        """The markdown under "## heading", up to the next heading of that level; empty when there is none."""
        text = "\n\n".join(cell.source for cell in self.prose)
        found = re.search(rf"^## {heading}\b.*?$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        return found[1] if found else ""


NOTEBOOKS = [Notebook(path) for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]


def notebook_id(notebook: Notebook) -> str:
    return notebook.path.stem

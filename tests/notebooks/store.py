"""Run notebooks from top to bottom and store their outputs, the way this repository keeps them.

    python tests/notebooks/store.py notebooks/01_compute_with_tensors.ipynb …

Edit a notebook as text first (`jupytext --to py:percent`, edit, `jupytext --update --to ipynb`), then run this: it
executes every cell in a fresh kernel without a front end, keeps the cells' ids and tags, and drops everything that
names this machine. A cell that raises stops it, and the file stays as it was.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python", "pygments_lexer": "ipython3"}


def store(path: Path) -> float:
    """Execute the notebook in place; returns the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = {"kernelspec": KERNEL, "language_info": LANGUAGE}
    started = time.perf_counter()
    client = NotebookClient(notebook, timeout=120, record_timing=False, resources={"metadata": {"path": path.parent}})
    client.execute()
    seconds = time.perf_counter() - started
    notebook.metadata = {"kernelspec": KERNEL, "language_info": LANGUAGE}  # the kernel adds its Python's version
    temporary = path.with_suffix(".ipynb.tmp")
    nbformat.write(notebook, temporary)
    temporary.replace(path)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", type=Path)
    for path in parser.parse_args().notebooks:
        print(f"{path.name}: {store(path):.1f} s, {path.stat().st_size / 1e3:,.0f} kB", flush=True)


if __name__ == "__main__":
    main()

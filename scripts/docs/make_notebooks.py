"""The notebooks, made of their sources: notebooks/NAME.py in Jupytext's percent format is what is edited.

NAME.ipynb stands beside it without outputs, because Colab opens nothing else from a repository; a test holds the two
together. The pictures are not kept: they are made anew wherever a notebook is run.

    python scripts/docs/make_notebooks.py                            writes notebooks/*.ipynb
    python scripts/docs/make_notebooks.py --run OUT [--set NAME=VALUE] [NAME ...]

`--run` executes notebooks in folders of their own below OUT and writes there each with its outputs, as NAME.ipynb and
as NAME.html. `--set` replaces what the cell of parameters has.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_SECONDS = 1200  # for a cell, on a busy machine


def sources() -> list[Path]:
    """Those of all notebooks, of every language."""
    return sorted(NOTEBOOKS.glob("*.py"))


def read_source(source: Path) -> Any:
    """A source as a notebook without outputs; equal sources give equal notebooks."""
    import jupytext

    notebook = jupytext.read(source)
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # Jupytext's are drawn at random
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
    return notebook


def as_json(notebook: Any) -> str:
    """The content of an .ipynb."""
    import nbformat

    nbformat.validate(notebook)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def with_parameters(notebook: Any, values: Mapping[str, str]) -> Any:
    """The notebook with other values, as Python writes them, in its cell of parameters, and no other change."""
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    for name, value in values.items():
        lines = cell.source.splitlines()
        if sum(line.startswith(f"{name} = ") for line in lines) != 1:
            raise SystemExit(f"there is no parameter {name} among: {cell.source}")
        lines = [f"{name} = {value}" if line.startswith(f"{name} = ") else line for line in lines]
        cell.source = "\n".join(lines)
    return notebook


def run(notebook: Any, folder: Path) -> Any:
    """Execute a notebook in a folder, which becomes its current directory; raises what a cell raised."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    folder.mkdir(parents=True, exist_ok=True)
    manager = AsyncKernelManager()
    # This Python's kernel, whatever "python3" stands for on this machine.
    manager._kernel_spec = KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, km=manager, timeout=_SECONDS, resources=resources).execute()
    return notebook


def as_html(notebook: Any) -> str:
    """A notebook with its outputs as a page."""
    from nbconvert import HTMLExporter

    return HTMLExporter().from_notebook_node(notebook)[0]


def on_files(files: Any, config: Any) -> Any:
    """MkDocs asks for the site's files: the notebooks are among them, to be downloaded."""
    from mkdocs.structure.files import File

    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        name = path.relative_to(NOTEBOOKS.parent).as_posix()
        files.append(File(name, str(NOTEBOOKS.parent), config.site_dir, use_directory_urls=False))
    return files


def main(argv: Sequence[str] | None = None) -> None:
    """Write the notebooks, or run some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [source.stem for source in sources()]
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"which to run (default: all): {', '.join(names)}")
    parser.add_argument("--run", metavar="OUT", type=Path, help="execute, and write with outputs below this folder")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="EPOCHS=1")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.names) - set(names):
        parser.error(f"no notebook {', '.join(sorted(unknown))}: {', '.join(names)}")
    if arguments.run is None:
        for source in sources():
            source.with_suffix(".ipynb").write_text(as_json(read_source(source)), encoding="utf-8")
        return
    run_all(arguments.names or names, arguments.run.resolve(), dict(each.split("=", 1) for each in arguments.set))


def run_all(names: Iterable[str], out: Path, values: Mapping[str, str]) -> None:
    """Run notebooks by name, and write each with its outputs."""
    for name in names:
        notebook = run(with_parameters(read_source(NOTEBOOKS / f"{name}.py"), values), out / name)
        (out / f"{name}.ipynb").write_text(as_json(notebook), encoding="utf-8")
        (out / f"{name}.html").write_text(as_html(notebook), encoding="utf-8")
        print(out / f"{name}.html")


if __name__ == "__main__":
    main()

"""The notebooks: what their sources give, one in both languages, and run from the built wheel."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import make_notebooks
import pytest

from jaxfood.errors import UserError
from jaxfood.report.figures import Figure

ROOT = Path(__file__).parents[1]
ENGLISH = [source for source in make_notebooks.sources() if not source.stem.endswith(".zh")]
SMALL = {
    "homework": {"EPOCHS": "1", "SETTINGS": '["data.image_size=32", "model.width=8"]'},
    "critical_points": {"EPOCHS": "1", "PICTURES": "8"},
    "your_folder": {"EPOCHS": "1", "IMAGE_SIZE": "32", "SETTINGS": '["model.width=4"]'},
}
BAR = "application/vnd.jupyter.widget-view+json"


def code(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_the_notebooks_are_those_of_the_sources() -> None:
    pytest.importorskip("jupytext")
    assert {source.stem for source in ENGLISH} == set(SMALL)
    assert {path.stem for path in make_notebooks.NOTEBOOKS.glob("*.ipynb")} == {
        path.stem for path in make_notebooks.sources()
    }
    for source in make_notebooks.sources():
        made = make_notebooks.as_json(make_notebooks.read_source(source))
        assert source.with_suffix(".ipynb").read_text("utf-8") == made, "run python scripts/docs/make_notebooks.py"


@pytest.mark.parametrize("source", ENGLISH, ids=lambda source: source.stem)
def test_the_chinese_notebook_has_the_code_of_the_english_one(source: Path) -> None:
    pytest.importorskip("jupytext")
    english, chinese = (make_notebooks.read_source(path) for path in (source, source.with_suffix(".zh.py")))
    assert code(chinese) == code(english)
    for one, other in zip(english.cells, chinese.cells, strict=True):
        assert one.cell_type == other.cell_type
        for pattern in (r"^#+(?= )", r"^- ", r"^> \*\*PyTorch\*\*"):
            assert len(re.findall(pattern, one.source, re.M)) == len(re.findall(pattern, other.source, re.M))
        if one.cell_type == "markdown":
            assert re.search("[一-鿿]", other.source)


def test_each_begins_with_its_badge_the_installation_and_what_can_be_set() -> None:
    pytest.importorskip("jupytext")
    pages = [(ROOT / "docs" / name).read_text("utf-8") for name in ("notebooks.md", "notebooks.zh.md")]
    installations = set()
    for source in make_notebooks.sources():
        title, install, parameters, *_ = make_notebooks.read_source(source).cells
        address = re.search(r"\((https://colab\.research\.google\.com/github/[^)]+)\)", title.source)[1]
        assert address.endswith(f"/jaxfood/blob/main/notebooks/{source.stem}.ipynb")
        assert all(f"]({address})" in page for page in pages)
        assert (install.metadata["tags"], parameters.metadata["tags"]) == (["install"], ["parameters"])
        installations.add(install.source)
    assert len(installations) == 1


def test_parameters_are_replaced_by_name_and_nothing_else_is() -> None:
    pytest.importorskip("jupytext")
    plain, changed = (make_notebooks.read_source(ENGLISH[0]) for _ in range(2))
    make_notebooks.with_parameters(changed, {"EPOCHS": "1"})
    differing = [(a, b) for a, b in zip(code(plain), code(changed), strict=True) if a != b]
    assert len(differing) == 1
    assert re.findall(r"^EPOCHS = .*", differing[0][1], re.M) == ["EPOCHS = 1"]
    with pytest.raises(SystemExit, match="no parameter SIZE"):
        make_notebooks.with_parameters(plain, {"SIZE": "1"})


def test_a_notebook_shows_a_figure_as_a_picture_with_its_words() -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    shown, words = formatters.DisplayFormatter().format(Figure("name", "Title", "Caption", b"\x89PNG"))
    assert shown["image/png"] == b"\x89PNG"
    assert words["image/png"] == {"alt": "Title"}


def test_a_notebook_shows_a_users_mistake_in_one_line() -> None:
    shell = pytest.importorskip("IPython.core.interactiveshell")
    mistake = UserError("no such folder: a\x1b[31mb; check the path")
    assert mistake._render_traceback_() == [r"UserError: no such folder: a\x1b[31mb; check the path"]
    assert "_render_traceback_" in Path(shell.__file__).read_text("utf-8")  # what IPython asks an exception for


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has what this one has, but no jaxfood."""
    if os.name == "nt":
        pytest.skip("links to packages need rights on Windows")
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    (folder / "packages").mkdir()
    for package in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "jaxfood" not in package.name and package.suffix != ".pth":
            (folder / "packages" / package.name).symlink_to(package)
    own = next((folder / "venv").glob("lib/python*/site-packages"))
    (own / "packages.pth").write_text(f"{folder / 'packages'}\n", encoding="utf-8")
    return folder / "venv" / "bin" / "python"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("no package index is within pip's reach, to fetch what builds the wheel")
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_from_the_built_wheel(name: str, python: Path, wheel: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    (tmp_path / name).mkdir()
    (tmp_path / name / wheel.name).symlink_to(wheel)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "JAX_", "XLA_"))}
    # nbconvert's templates lie beside the packages, and are not linked.
    templates = str(Path(sysconfig.get_paths()["data"]) / "share" / "jupyter")
    environment = kept | {"JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1", "JUPYTER_PATH": templates}
    settings = [word for key, value in SMALL[name].items() for word in ("--set", f"{key}={value}")]
    command = [str(python), str(ROOT / "scripts/docs/make_notebooks.py"), "--run", str(tmp_path), *settings, name]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    where = subprocess.run(
        [str(python), "-c", "import jaxfood; print(jaxfood.__file__)"], cwd=tmp_path, capture_output=True, text=True
    )
    assert where.stdout.startswith(str(python.parents[1]))
    check_outputs(nbformat.read(tmp_path / f"{name}.ipynb", as_version=4))
    assert (tmp_path / f"{name}.html").read_text("utf-8").count('src="data:image/png;base64') >= 5


def check_outputs(executed: Any) -> None:
    """Pictures came out, the bars are notebook bars, and an epoch was told."""
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    data = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
    printed = {kind: "".join(o.text for o in outputs if o.get("name") == kind) for kind in ("stdout", "stderr")}
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in each for each in data) >= 5
    assert any(BAR in each for each in data)
    assert "%|" not in printed["stderr"]  # a bar as text
    assert "epoch 1/1: train loss" in printed["stdout"]

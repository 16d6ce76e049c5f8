"""What is published: its metadata, what wheel and sdist hold, and that both serve in a clean environment."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jaxfood

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")

# A program of a user's. Lines that end with `wrong` must be found wrong, or the types do not reach it.
PROGRAM = """
from pathlib import Path

import jax
import jaxfood

config: jaxfood.Config = jaxfood.load_config("demo", ("train.epochs=1",))
model = jaxfood.FoodClassifier(num_classes=11)
variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 64, 64, 3)), train=False)
state: jaxfood.TrainState = jaxfood.TrainState.create(config, variables, total_steps=1)
tx = jaxfood.make_optimizer(config, total_steps=1)
state, metrics = jaxfood.train_step(state, {"image": jax.numpy.zeros((1, 64, 64, 3)), "label": jax.numpy.zeros(1, int)})
summary = jaxfood.train_and_evaluate(config, Path("runs/mine"), resume=False, overwrite=True)
loaded = jaxfood.load_run("runs/mine", which="last")
answers = jaxfood.predict_probabilities(["runs/mine"], "test")
jaxfood.to_torch(jaxfood.from_torch("best.ckpt"), "best.safetensors")
mistake: type[ValueError] = jaxfood.UserError
jaxfood.load_config(1)  # wrong
jaxfood.TrainState.create(config)  # wrong
text: str = config.train.epochs  # wrong
jaxfood.no_such_name  # wrong
"""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """pyproject.toml's [project]."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def test_one_version_everywhere() -> None:
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert cited is not None
    assert cited[1] == jaxfood.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", jaxfood.__version__)
    assert f"## {jaxfood.__version__} (" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_metadata_are_what_an_index_takes(project: dict[str, Any]) -> None:
    # That the classifiers are known ones hatchling itself checks, when it builds.
    classifiers = project["classifiers"]
    assert [name.rpartition(" ")[2] for name in classifiers if re.search(r":: 3\.\d+$", name)] == list(PYTHONS)
    assert not any(name.startswith("License") for name in classifiers)  # beside a licence expression they are refused
    assert all(url.startswith("https://") for url in project.get("urls", {}).values())


def test_the_forms_and_the_citation_are_yaml() -> None:
    yaml = pytest.importorskip("yaml")
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.name for form in forms] == ["bug.yml", "config.yml", "data_folder.yml", "question.yml"]
    for form in forms:
        content = yaml.safe_load(form.read_text(encoding="utf-8"))
        if form.name == "config.yml":
            continue
        fields = [field for field in content["body"] if field["type"] != "markdown"]
        assert content["name"]
        assert content["description"]
        assert len({field["id"] for field in fields}) == len(fields)
        assert all(field["attributes"]["label"] for field in fields)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()


def test_links_of_the_papers_lead_somewhere() -> None:
    for paper in ("CONTRIBUTING.md", "SECURITY.md", "RELEASING.md"):
        text = (ROOT / paper).read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (ROOT / target).exists(), f"{paper}: {target}"


# The rest is slow: it builds, and installs in environments of its own.


def sh(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; it must end with 0."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JAX_", "XLA_"))}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def find_python(version: str) -> Path | None:
    """The interpreter of a version, if this machine has it."""
    for environment in ({}, {"PYENV_VERSION": version}):
        command = [f"python{version}", "-c", "import sys; print(sys.executable)"]
        try:
            done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
        except OSError:
            return None
        if done.returncode == 0:
            return Path(done.stdout.strip())
    return None


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a clean environment of a version, with pip, and gives its Python; skips where that cannot be."""

    def make(version: str) -> Path:
        folder = tmp_path_factory.mktemp("environment")
        if (python := find_python(version)) is None:
            pytest.skip(f"there is no Python {version} on this machine")
        sh(python, "-m", "venv", folder / "venv", cwd=folder)
        own = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        probe = [str(own), "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "hatchling"]
        if subprocess.run(probe, cwd=folder, capture_output=True, check=False).returncode:
            pytest.skip("no package index is within pip's reach")
        return own

    return make


@pytest.fixture(scope="module")
def built(environment: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a wheel and an sdist, built of a copy of what git would check out."""
    python = environment(f"{sys.version_info.major}.{sys.version_info.minor}")
    copy = tmp_path_factory.mktemp("checkout") / "jaxfood"
    made = {".git", ".venv", "runs", "dist", "build"}  # at the top alone: jaxfood/runs is a part of it

    def ignored(folder: str, names: list[str]) -> set[str]:
        cached = {name for name in names if name == "__pycache__" or name.endswith(("_cache", ".egg-info"))}
        return cached | (made & set(names) if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, copy, ignore=ignored)
    sh(python, "-m", "pip", "install", "--quiet", "hatchling", cwd=copy)
    sh(python, "-m", "hatchling", "build", cwd=copy)
    return copy / "dist"


@pytest.mark.slow
def test_wheel_and_sdist_hold_everything_and_the_same(
    built: Path, environment: Callable[[str], Path], tmp_path: Path
) -> None:
    wheel, sdist = next(built.glob("*.whl")), next(built.glob("*.tar.gz"))
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "jaxfood").rglob("*.py")}
    recipes = {f"jaxfood/configs/{path.name}" for path in (ROOT / "configs").glob("*.toml")}
    assert {"jaxfood/py.typed"} | modules | recipes <= names
    assert {name.partition("/")[0] for name in names} == {"jaxfood", f"jaxfood-{jaxfood.__version__}.dist-info"}
    assert f"\nVersion: {jaxfood.__version__}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CHANGELOG.md", "CITATION.cff", "LICENSE", "examples/own_network.py", "tests/conftest.py"} <= held
    python = environment(f"{sys.version_info.major}.{sys.version_info.minor}")
    sh(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, sdist, cwd=tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        assert set(archive.namelist()) == names


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_wheel_and_sdist_serve_in_a_clean_environment(
    version: str, built: Path, environment: Callable[[str], Path], tmp_path: Path
) -> None:
    python = environment(version)
    sh(python, "-m", "pip", "install", "--quiet", next(built.glob("*.whl")), cwd=tmp_path)
    sh(python, "-m", "pip", "check", cwd=tmp_path)
    run_commands(python, tmp_path / "of_the_wheel")
    if version == PYTHONS[0]:
        check_types(python, tmp_path)
    sh(
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--force-reinstall",
        next(built.glob("*.tar.gz")),
        cwd=tmp_path,
    )
    run_commands(python, tmp_path / "of_the_sdist")


def run_commands(python: Path, folder: Path) -> None:
    """What needs only the package: every public name, a recipe that ships with it, help, and a training's beginning."""
    folder.mkdir()
    names = sh(python, "-c", "import jaxfood; print([getattr(jaxfood, n) for n in dir(jaxfood)])", cwd=folder)
    assert "train_and_evaluate" in names
    assert "--data.root" in sh(python, "-m", "jaxfood.train", "--help", cwd=folder)
    assert "ml2023spring-hw3" in sh(python, "-m", "jaxfood.food11", cwd=folder)
    tiny = ("--data.image_size", "32", "--data.fraction", "0.1", "--model.name", "resnet", "--model.width", "8")
    cache = {"XDG_CACHE_HOME": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}
    training = ("--config", "demo", "--train.epochs", "1", "--logging.progress", "false", "--workdir", "run", *tiny)
    sh(python, "-m", "jaxfood.train", *training, cwd=folder, **cache)
    assert (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").count("\n") == 1


def check_types(python: Path, folder: Path) -> None:
    """A program of a user's is checked against the types that the wheel brings (py.typed)."""
    sh(python, "-m", "pip", "install", "--quiet", "mypy", cwd=folder)
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [str(python), "-m", "mypy", "--strict", "--no-pretty", "program.py"], cwd=folder, capture_output=True, text=True
    )
    found = {int(line) for line in re.findall(r"^program\.py:(\d+): error", done.stdout, re.M)}
    wrong = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}
    assert found == wrong, done.stdout + done.stderr

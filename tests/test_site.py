"""The site: built strictly, its reference holds what the code has, and the commands of its tutorials run."""

import dataclasses
import itertools
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import site_reference
from PIL import Image
from tutorials import run_page, smaller

from jaxfood.config import Config
from jaxfood.config.loading import variants_of
from jaxfood.config.sections import SECTIONS
from jaxfood.data import demo
from jaxfood.lessons import LESSONS
from jaxfood.run_landscape import critical_rate, measure
from jaxfood.runs import directory
from jaxfood.runs.folds import FOLDS
from jaxfood.training.metrics import epoch_record

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Each goes on with the runs of the one before.
HOMEWORK = (
    "tutorials/homework",
    "tutorials/simple_to_boss",
    "tutorials/understand_a_run",
    "evaluation",
    "explanations",
)
MACHINES = ("tutorials/gpu", "tutorials/several_machines")
SETTINGS = {
    f"{name}.{field.name}" for name in SECTIONS for kind in variants_of(name) for field in dataclasses.fields(kind)
}


def read(page: str) -> str:
    return (DOCS / page).read_text("utf-8")


def test_the_reference_has_every_setting_with_what_help_says_of_it() -> None:
    page = site_reference.settings_page()
    rows = dict(re.findall(r"^\| `([\w.]+)`(.*)", page, re.M))
    assert set(rows) == SETTINGS
    assert rows["data.valid_fraction"].startswith(" | `0.0` | a number, at least 0, below 1 | validate on this share")
    assert rows["model.width"].startswith(" | `64` for classifier; `32` for resnet | an integer, at least 1")
    assert [rows[name][1] for name in ("train.epochs", "landscape.every", "train.teachers")] == ["↻", "↻", "⇄"]
    assert all(re.match(r"( [↻⇄])? \| (`[^`]+`|empty)[^|]* \| [^|]{3,} \| ", row) for row in rows.values())


def test_the_reference_has_every_command_with_its_arguments() -> None:
    page = site_reference.commands_page()
    sections = dict(re.findall(r"^## ([\w. -]+) \{.*?\}\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    wanted = {
        "train",
        "predict",
        "preview",
        "landscape",
        "lessons",
        "convert from-torch",
        "convert to-torch",
        "data.tfds",
    }
    assert wanted <= set(sections)
    assert "| `--workdir WORKDIR` | the run's directory" in sections["train"]
    assert "| `--images DIR` |" in sections["landscape"]
    assert "settings.md#landscape" in sections["landscape"]
    assert "settings.md#train" not in sections["landscape"]
    assert "settings.md" not in sections["predict"]


def test_the_library_page_has_every_public_name() -> None:
    page = site_reference.api_page()
    for name in ("Config", "load_config", "UserError", "FoodClassifier", "train_step", "predict_probabilities"):
        assert re.search(rf"^::: jaxfood\.[\w.]+\.{name}$", page, re.M)
    assert Config.__name__ in page
    assert "::: jaxfood.landscape.verdict.judge" in site_reference.landscape_page()


def test_the_page_of_files_has_every_file_of_a_run_and_every_number_of_an_epoch() -> None:
    page = read("reference/files.md")
    table = set(re.findall(r"^\| `([\w.]+)` \|", page.partition("## metrics.jsonl")[0], re.M))
    assert table == {*directory._OWN, ".lock"}
    assert f"## {FOLDS}" in page
    listed = re.search(r"^## metrics.jsonl\n(.*?)^## ", page, re.M | re.S)[1]
    names = {name for row in re.findall(r"^\| (`.*?`) \|", listed, re.M) for name in re.findall(r"`(\w+)`", row)}
    means = dict.fromkeys(("loss", "accuracy", "grad_norm", "pseudo_label_share"), 0.0)
    record = epoch_record(1, 1, means, means, learning_rate=0.0, seconds=0.0, images_per_second=0.0)
    in_code = set(re.findall(r'"(landscape_\w+)"', Path(measure.__file__).read_text("utf-8")))
    in_code |= set(re.findall(r'"(critical_\w+)"', Path(critical_rate.__file__).read_text("utf-8")))
    assert names == {*record, *in_code}


def test_the_page_of_lessons_has_each_in_its_order() -> None:
    assert re.findall(r"^## (\S+)$", read("lessons.md"), re.M) == list(LESSONS)


def test_every_measured_figure_has_its_command_and_its_day() -> None:
    for section in re.split(r"^## ", read("background/measured.md"), flags=re.M)[1:]:
        assert re.search(r"`(?:python|pytest) [^`]+`", section), section.splitlines()[0]
        assert re.search(r"\b20\d\d-\d\d-\d\d\b|not measured", section), section.splitlines()[0]


def test_every_flag_and_command_that_the_pages_name_is_there() -> None:
    commands = {name.removeprefix("jaxfood.") for name in site_reference.commands()}
    for page in DOCS.rglob("*.md"):
        text = page.read_text("utf-8")
        flags = set(re.findall(rf"--((?:{'|'.join(SECTIONS)})\.\w+)", text)) - {"optimizer.lr"}  # shown as a mistake
        assert flags <= SETTINGS, page
        named = set(re.findall(r"python -m jaxfood\.([a-z_.]*[a-z][0-9]*)", text))
        assert named <= commands, page


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.zh.md")), ids=lambda page: page.name)
def test_a_translation_has_the_commands_headings_and_links_of_its_page(page: Path) -> None:
    own, other = page.read_text("utf-8"), Path(str(page).replace(".zh.md", ".md")).read_text("utf-8")
    for pattern in (r"^```\w*\n.*?^```$", r"^#+(?= )", r"\]\(([^)#]+)", r"^\|(?= )", r"^<!-- .* -->$"):
        found, wanted = (re.findall(pattern, text, re.M | re.S if "```" in pattern else re.M) for text in (own, other))
        assert found == wanted


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning is an error."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_in_both_languages(site: Path) -> None:
    for language in ("", "zh/"):
        assert 'id="jaxfood.train.train_and_evaluate"' in (site / language / "reference/api.html").read_text("utf-8")
        settings = (site / language / "reference/settings.html").read_text("utf-8")
        assert "<code>optimizer.learning_rate</code>" in settings
    assert "第一次运行" in (site / "zh/tutorials/first_run.html").read_text("utf-8")
    for page, notebook in (("", "notebooks/homework.ipynb"), ("zh/", "../notebooks/homework.zh.ipynb")):
        assert f'href="{notebook}"' in (site / f"{page}notebooks.html").read_text("utf-8")
        assert (site / page / notebook).resolve().is_file()


@pytest.mark.slow
@pytest.mark.browser
def test_pages_fit_a_phone_and_a_desk_light_and_dark(site: Path, browser: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    def fits(browser: Any) -> bool:
        return browser.execute_script("return document.documentElement.scrollWidth") <= width

    for scheme, width in itertools.product(("light", "dark"), (380, 1280)):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for page in ("index", "tutorials/first_run", "reference/settings", "reference/api", "zh/index"):
            browser.get((site / f"{page}.html").as_uri())
            WebDriverWait(browser, 10).until(fits, message=f"{page} at {width} px")  # scripts still lay tables out
            shown = browser.execute_script("return document.body.getAttribute('data-md-color-scheme')")
            assert shown == {"light": "default", "dark": "slate"}[scheme]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory as a reader of the tutorials has it: hw3_data, photos, and a home of its own."""
    monkeypatch.setattr(demo, "_PICTURES_A_CLASS", {"train": 2, "valid": 1, "test": 1})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    for label in range(11):
        for split, count in (("train", 4), ("valid", 2)):
            for number in range(count):
                draw(tmp_path / "hw3_data" / split / f"{label}_{number}.jpg", label)
        draw(tmp_path / "hw3_data" / "unlabeled" / f"{label}.jpg", label)
        draw(tmp_path / "hw3_data" / "test" / f"{label + 1:04}.jpg", label)
    for label, name in enumerate(("Bread", "Egg", "Soup")):
        for split in ("train", "valid"):
            for number in range(4):
                draw(tmp_path / "photos" / split / name / f"{number}.jpg", label)
    return tmp_path


def draw(path: Path, label: int) -> None:
    """A small picture of one class, other than every other one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32(path.as_posix().encode()[-40:])
    pixels = np.random.default_rng(seed).integers(0, 100, (36, 44, 3)) + 14 * label
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=90)


@pytest.mark.slow
def test_every_command_of_the_first_tutorial_runs(desk: Path) -> None:
    printed = run_page(DOCS / "tutorials/first_run.md")
    assert "submission.csv: 11 rows; Ids are 0001 to 0011 by --ids stem" in printed
    assert "going on after step" in printed
    assert (desk / "runs/demo-2").is_dir()


@pytest.mark.slow
def test_every_command_for_ones_own_folder_runs(desk: Path) -> None:
    printed = run_page(DOCS / "tutorials/your_folder.md")
    assert "Id,Bread,Egg,Soup" in printed
    assert (desk / "preview/preview.md").is_file()


@pytest.mark.slow
def test_every_command_of_the_homework_runs_and_of_what_goes_on_from_there(desk: Path) -> None:
    with zipfile.ZipFile(desk / "ml2023spring-hw3.zip", "w") as archive:
        for picture in (desk / "hw3_data").rglob("*.jpg"):
            archive.write(picture, picture.relative_to(desk / "hw3_data"))
    shutil.rmtree(desk / "hw3_data")
    printed = {name: run_page(DOCS / f"{name}.md") for name in HOMEWORK}
    assert "Id,Category\n0001," in printed["tutorials/homework"]
    assert (desk / "runs/folds/fold3/metrics.jsonl").is_file()
    assert (desk / "runs/hw3-1/landscape/landscape.md").is_file()
    assert "critical-points" in printed["tutorials/understand_a_run"]
    assert (desk / "runs/medium/evaluation/valid-2-runs/report.html").is_file()
    assert (desk / "explanations_1.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_every_command_on_machines_runs(name: str, desk: Path) -> None:
    run_page(DOCS / f"{name}.md")


@pytest.mark.slow
def test_both_processes_of_the_tutorial_train_together(desk: Path) -> None:
    """The two blocks that `run_page` leaves out, as they wait for each other."""
    text = read("tutorials/several_machines.md").replace("\\\n", " ").replace("9876", str(free_port()))
    commands = [shlex.split(line) for line in re.findall(r"^python -m jaxfood.train .*process_id \d$", text, re.M)]
    command = [[sys.executable, "-m", words[2], *smaller(words[2], words[3:])] for words in commands]
    for words in command:  # several processes use all their devices
        at = words.index("--device.count")
        del words[at : at + 2]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    both = [subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) for words in command]
    ended = [(process.communicate(timeout=600)[1], process.returncode) for process in both]
    assert [status for _, status in ended] == [0, 0], ended
    assert (desk / "runs/two/metrics.jsonl").is_file()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_every_tutorial_is_run() -> None:
    """Those in the navigation; docs/tpu.md is run by tests/test_tpu_scripts.py, the notebooks by tests of their own."""
    listed = (ROOT / "mkdocs.yml").read_text("utf-8").partition("- Tutorials:")[2].partition("- How to:")[0]
    pages = {page.removesuffix(".md") for page in re.findall(r"- (\S+\.md)$", listed, re.M)}
    assert pages - {"tpu", "notebooks"} == {"tutorials/first_run", "tutorials/your_folder", *HOMEWORK, *MACHINES}


@pytest.mark.slow
def test_the_loop_of_ones_own_network_runs(desk: Path) -> None:
    printed = run_page(DOCS / "howto" / "own_network.md")
    assert re.findall(r"^epoch (\d): loss \d\.\d+, valid accuracy \d\.\d+$", printed, re.M) == ["1", "2"]

"""Eight virtual CPU devices, tiny pictures, and a configuration to train on them in seconds."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before JAX is imported: it reads these when it starts.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
# Threads for them. By default XLA has as many as devices, and where a queue of steps waits for each other they run out.
os.environ["PJRT_NPROC"] = "16"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax
import numpy as np
import pytest
from PIL import Image

from jaxfood.config import Config, load_config

TRAIN_PER_CLASS, VALID_PER_CLASS, NUM_CLASSES, NUM_TEST = 7, 3, 3, 5


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Comparisons with PyTorch skip where it is missing, unless JAXFOOD_REQUIRE_TORCH is set (as CI does)."""
    if importlib.util.find_spec("torch") is not None:
        return
    if os.environ.get("JAXFOOD_REQUIRE_TORCH"):
        pytest.exit("JAXFOOD_REQUIRE_TORCH is set and PyTorch is not installed", returncode=1)
    for item in items:
        if item.get_closest_marker("torch"):
            item.add_marker(pytest.mark.skip(reason="compares with PyTorch, which is not installed"))


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def no_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs with its calls cannot be kept on disk, as those of the tests are; tests/test_fused_onednn.py has it."""
    monkeypatch.setattr("jaxfood.model.fused.onednn.missing", lambda: "switched off for the tests")


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """The networks with few features, for tests of what is around it: it compiles and runs in a fraction."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("jaxfood.model.classifier", "jaxfood.pytorch.tables"):
            patch.setattr(f"{module}.FEATURES", (8, 8, 8, 8, 8))
            patch.setattr(f"{module}.HIDDEN", (16, 8))
        patch.setattr("jaxfood.model.torchvision_resnet.FEATURES", (8, 8, 16, 16))
        jax.clear_caches()  # programs of equal configurations are one, whatever their widths
        yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def tiny_food(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the homework's layout: three classes of small JPEGs that differ in colour, and noise."""
    root = tmp_path_factory.mktemp("tiny_food")
    rng = np.random.default_rng(0)

    def draw(path: Path, label: int) -> None:
        pixels = rng.integers(0, 120, (36, 44, 3))
        pixels[..., label] += 110
        Image.fromarray(pixels.astype(np.uint8)).save(path, quality=90)

    for split, count in (("train", TRAIN_PER_CLASS), ("valid", VALID_PER_CLASS)):
        (root / split).mkdir()
        for label in range(NUM_CLASSES):
            for number in range(count):
                draw(root / split / f"{label}_{number}.jpg", label)
    (root / "test").mkdir()
    for number in range(NUM_TEST):
        draw(root / "test" / f"{number + 1:04}.jpg", number % NUM_CLASSES)
    return root


@pytest.fixture
def tiny_config(tiny_food: Path) -> Config:
    """Two epochs of three steps on one device: 21 training pictures in batches of 8, the last one of 5."""
    return load_config(
        None,
        (
            f"data.root={tiny_food}",
            "data.image_size=32",
            "model.num_classes=3",
            "train.batch_size=8",
            "train.epochs=2",
            "device.count=1",
            "logging.progress=false",
        ),
    )


@pytest.fixture
def food(tmp_path: Path) -> Callable[..., Path]:
    """Makes small pictures at paths below a root, each of a grey of its own."""

    def make(*names: str) -> Path:
        root = tmp_path / "food"
        for name in names:
            grey = 1 + sum(1 for _ in root.rglob("*.png"))
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (grey, grey, grey)).save(path)
        return root

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, in the language and the theme of people who have set nothing: English, light."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver are not installed (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("no-sandbox", "headless=new", "disable-gpu", "disable-dev-shm-usage", "lang=en"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.set_script_timeout(120)
    yield opened
    opened.quit()


def axe_violations(browser: Any) -> list[str]:
    """What axe-core finds on the page that is open, by the rule and the element."""
    axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed")
    found = axe.Axe().run(browser)
    assert {"color-contrast", "aria-valid-attr"} <= {each["id"] for each in found["passes"]}
    return [f"{each['id']}: {node['html'][:200]}" for each in found["violations"] for node in each["nodes"]]

"""`python -m jaxfood.landscape` on a tiny run, and the measurements while training."""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxfood import files
from jaxfood.config import Config, load_config
from jaxfood.config.landscape import LandscapeConfig
from jaxfood.data.splits import load_splits
from jaxfood.errors import UserError
from jaxfood.files import is_remote
from jaxfood.landscape import Objective, Point
from jaxfood.landscape.__main__ import main
from jaxfood.model.networks import init_variables, make_model, predict_logits
from jaxfood.optim.losses import make_loss
from jaxfood.report.page import Page
from jaxfood.run_landscape import survey
from jaxfood.run_landscape.measure import (
    PARTS,
    LocalGeometry,
    PointReport,
    classify,
    landscape_metrics,
    measure_geometry,
)
from jaxfood.run_landscape.objective import choose_positions, make_objective
from jaxfood.runs.directory import kept_steps, load_run, read_classes, read_config
from jaxfood.train import train_and_evaluate
from jaxfood.training.logbook import read_metrics
from jaxfood.training.metrics import batch_sums, means
from jaxfood.training.saved import begin_from
from jaxfood.training.step import loss_fn

pytestmark = pytest.mark.usefixtures("narrow")

FAST = (
    *("--samples", "4", "--landscape.max_products", "3", "--landscape.trace_products", "4"),
    *("--landscape.probes", "2", "--landscape.steps", "2"),
)
NUMBERS = ("loss", "gradient_norm", "largest_eigenvalue", "largest_residual", "smallest_eigenvalue")
NUMBERS += ("smallest_residual", "tolerance")


@pytest.fixture(scope="module")
def config(tiny_food: Path) -> Config:
    shape = ("data.image_size=32", "model.num_classes=3", "train.batch_size=8", "train.epochs=2", "device.count=1")
    landscape = ("landscape.every=2", "landscape.samples=4", "landscape.max_products=3")
    return load_config(None, (f"data.root={tiny_food}", "logging.progress=false", *shape, *landscape))


@pytest.fixture(scope="module")
def run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs, measured after the second one."""
    workdir = tmp_path_factory.mktemp("landscape") / "run"
    train_and_evaluate(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def saddle(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped at a made saddle: with the weights of the last two layers 0 all pictures look alike to the head.

    For as many pictures of each class its gradient is 0, and so is that of all below it; together the two layers could
    tell the classes apart, in one direction or in its opposite.
    """
    workdir = tmp_path_factory.mktemp("saddle") / "run"
    variables = init_variables(config)
    for layer, bias in (("dense2", 0.05), ("head", 0.0)):
        kernel = jnp.zeros_like(variables["params"][layer]["kernel"])
        variables["params"][layer] = {"kernel": kernel, "bias": jnp.full(kernel.shape[1], bias)}
    begin_from(workdir, config, variables, classes=("red", "green", "blue"))
    return workdir


def test_training_measures_after_every_so_many_epochs(run: Path) -> None:
    first, second = read_metrics(run / "metrics.jsonl")
    added = second.keys() - first.keys()
    assert added == {
        *("landscape_gradient_norm", "landscape_promised_decrease"),
        *("landscape_largest_eigenvalue", "landscape_smallest_eigenvalue"),
    }
    assert second["landscape_smallest_eigenvalue"] < second["landscape_largest_eigenvalue"]
    assert all(np.isfinite(second[name]) for name in added - {"landscape_promised_decrease"})


@pytest.mark.slow
def test_one_checkpoint(run: Path, tiny_food: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(run), "--images", str(tiny_food / "train"), "--which", "last", *FAST])
    out = capsys.readouterr().out
    assert "parameters; a Hessian-vector product takes" in out
    assert f"{run}, last: not critical: " in out
    assert out.splitlines()[-1] == f"{run}/landscape/landscape.md"
    report = json.loads((run / "landscape" / "landscape.json").read_text())
    assert report["verdict"] == "not_critical"
    assert report["samples"] == 4
    assert all(isinstance(report[name], float) for name in NUMBERS)
    # The same four pictures, drawn by the same seed, were measured while training: loss and gradient are the same.
    assert (report["missing"], report["why_missing"]) == ([], "")
    assert len(report["density"]["nodes"]) == 2
    metrics = read_metrics(run / "metrics.jsonl")[-1]
    assert report["gradient_norm"] == pytest.approx(metrics["landscape_gradient_norm"], rel=1e-4)
    page = (run / "landscape" / "landscape.md").read_text()
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)
    assert pictures == ["landscape-spectrum.png", "landscape-lines.png", "landscape-plane.png"]
    for name in pictures:
        with Image.open(run / "landscape" / name) as picture:
            assert min(picture.size) > 400


@pytest.fixture
def surveyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Surveys a quadratic in place of a run's loss and gives landscape.json: no training, little to compile."""
    curvature = jnp.linspace(-1.0, 3.0, 40)

    def loss(params: Any) -> Any:
        return 5 + jnp.sum(curvature * jnp.ravel(params["kernel"]) ** 2) / 2 + jnp.sum(params["kernel"])

    def make(config: Config, variables: Any, pictures: Any, on_product: Callable[[], None]) -> Point:
        return Point(Objective.of(loss), {"kernel": jnp.ones((8, 5))}, on_product)

    monkeypatch.setattr(survey, "load_sample", lambda *arguments: [None] * 4)
    monkeypatch.setattr(survey, "load_run", lambda run, which: (None, {}, None))
    monkeypatch.setattr(survey, "kept_steps", lambda run: [10, 20, 30])
    monkeypatch.setattr(survey, "make_point", make)
    settings = LandscapeConfig(dense_size=0, max_products=10, trace_products=4, probes=2, steps=2)

    def read() -> dict[str, Any]:
        numbers: dict[str, Any] = json.loads((tmp_path / "landscape.json").read_text())
        return numbers

    def survey_quadratic(which: str | None = "best", **more: Any) -> dict[str, Any]:
        config = dataclasses.replace(Config(), landscape=settings)
        survey.survey_run(Path("runs/a"), config, "food/valid", which=which, out=tmp_path, **more)
        return read()

    survey_quadratic.read = read  # type: ignore[attr-defined]
    return survey_quadratic


def test_nothing_is_measured_twice(
    surveyed: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plane's losses along either vector are the line's, and its middle is the point's own."""
    counts: dict[str, int] = dict.fromkeys(("value", "value_and_gradient", "product"), 0)
    for name in counts:
        method = getattr(Objective, name)

        def counted(*arguments: Any, name: str = name, method: Any = method) -> Any:
            counts[name] += 1
            return method(*arguments)

        monkeypatch.setattr(Objective, name, counted)
    report = surveyed()
    assert (report["missing"], report["why_missing"]) == ([], "")
    lines, plane = report["lines"], np.array(report["plane"]["losses"])
    for name, losses in (("largest", plane[:, 5]), ("smallest", plane[5])):
        assert losses.tolist() == lines[f"{name} eigenvalue's vector"]["losses"][::2]
    assert counts["value"] == 3 * 20 + 10 * 10 + 2  # and of sharpness two
    assert counts["value_and_gradient"] == 1 + 1 + 5  # the point's, and sharpness' ascent
    assert counts["product"] == report["products"] + 1 + 2 + 4 + 1  # along -g; density; trace; sharpness' model
    assert "40 parameters; a Hessian-vector product takes" in capsys.readouterr().out
    trace = report["trace"]
    assert abs(trace["value"] - 40) <= 4 * trace["standard_error"] + 1e-3


def test_quick_measures_the_ends_and_the_lines(surveyed: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """And leaves no picture of an earlier survey beside its page."""
    for name in ("plane", "path"):
        (tmp_path / f"landscape-{name}.png").touch()
    report = surveyed(quick=True)
    assert (report["missing"], report["why_missing"]) == (["density", "trace", "plane", "sharpness"], "--quick")
    assert len(report["lines"]) == 3
    assert not {"density", "trace", "plane", "sharpness", "minimum_ratio"} & report.keys()
    assert [path.name for path in tmp_path.glob("*.png")] == ["landscape-lines.png"]
    assert "**Not measured** (--quick): density, trace, plane, sharpness." in (tmp_path / "landscape.md").read_text()


@pytest.mark.parametrize(
    ("stop", "expected", "why"),
    [
        (KeyboardInterrupt(), "^: .*/landscape.md has what was measured$", "interrupted"),
        (UserError("the loss is odd"), "^the loss is odd$", "the loss is odd"),
    ],
)
def test_what_is_stopped_keeps_what_it_has(
    surveyed: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    stop: BaseException,
    expected: str,
    why: str,
) -> None:
    """The ends are on the disk before the rest begins."""
    seen = []

    def stopped(*arguments: Any, **more: Any) -> Iterator[LocalGeometry]:
        seen.append(surveyed.read())  # type: ignore[attr-defined]
        yield next(measure_geometry(*arguments, **more))
        raise stop

    monkeypatch.setattr(survey, "measure_geometry", stopped)
    with pytest.raises(type(stop), match=expected):
        surveyed()
    (before,), after = seen, surveyed.read()  # type: ignore[attr-defined]
    assert (before["missing"], before["why_missing"]) == (list(PARTS), "still being measured")
    assert (after["missing"], after["why_missing"]) == (list(PARTS), why)  # of the lines one is there
    assert (len(before["lines"]), len(after["lines"])) == (0, 1)
    assert {name: after[name] for name in NUMBERS} == {name: before[name] for name in NUMBERS}


def test_a_stopped_path_keeps_the_checkpoints_that_it_has(
    surveyed: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[PointReport] = []

    def stopped(*arguments: Any) -> PointReport:
        if reports:
            raise KeyboardInterrupt
        reports.append(classify(*arguments))
        return reports[0]

    monkeypatch.setattr(survey, "classify", stopped)
    with pytest.raises(KeyboardInterrupt, match="has what was measured"):
        surveyed(None)
    report = surveyed.read()  # type: ignore[attr-defined]
    assert [row["step"] for row in report["path"]] == [10]
    assert (report["missing"], report["why_missing"]) == (["step 20", "step 30"], "interrupted")


@pytest.mark.slow
def test_every_checkpoint(run: Path, tiny_food: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(run), "--images", str(tiny_food / "valid"), "--path", "--out", str(tmp_path / "out"), *FAST])
    report = json.loads((tmp_path / "out" / "landscape.json").read_text())
    path, out = report["path"], capsys.readouterr().out
    assert [row["step"] for row in path] == kept_steps(run)
    assert all(f"{run}, step {row['step']}: {row['verdict'].replace('_', ' ')}: " in out for row in path)
    assert all(report[name] == path[-1][name] for name in ("verdict", *NUMBERS))
    assert (tmp_path / "out" / "landscape-path.png").is_file()


@pytest.mark.slow
def test_a_made_saddle_is_left_and_training_goes_on(
    saddle: Path, tiny_food: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    flags = ["--samples", "21", *FAST[2:], "--landscape.max_products", "12"]
    main([str(saddle), "--images", str(tiny_food / "train"), "--out", str(tmp_path), "--escape", str(new), *flags])
    report = json.loads((tmp_path / "landscape.json").read_text())
    assert report["verdict"] == "saddle"
    assert report["loss"] == pytest.approx(np.log(3), rel=1e-5)  # 7 pictures of each class, all logits 0
    assert report["smallest_eigenvalue"] < -report["tolerance"]
    before, after = map(float, re.search(r"loss (\S+) -> (\S+);", capsys.readouterr().out).groups())  # type: ignore[union-attr]
    assert after < before
    assert read_classes(new) == ("red", "green", "blue")
    _, variables, _ = load_run(new, "last")
    config = read_config(new)
    splits = load_splits(config.data, 3, seed=0, progress=False)
    assert make_objective(config, variables["batch_stats"], splits.train).value(variables["params"]) == pytest.approx(
        after, rel=1e-4
    )
    assert train_and_evaluate(config, new, resume=True)["epochs"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "nowhere"], "no such folder or file: .*nowhere"),
        (["--images", "EMPTY"], "no pictures"),
        (
            ["--images", "BROKEN"],
            r"1 of the 2 pictures in .*broken cannot be read: 0_1\.jpg \(a text, no picture\): mend or remove them$",
        ),
        (["--images", "FOOD/test"], "have no label"),
        (["--images", "FOOD/train", "--which", "77"], "has no checkpoint 77"),
        (["--images", "FOOD/train", "--samples", "0"], r"landscape\.samples = 0: it takes an integer, at least 1"),
        (["--images", "FOOD/train", "--path", "--escape", "x"], "--escape leaves one checkpoint"),
        (["--images", "FOOD/train", "--path", "--quick"], "--path measures no surroundings anyway: leave out --quick"),
        (["--images", "FOOD/train", "--escape", "RUN"], "is a run already"),
        (["--images", "FOOD/train", "--escape", "s3://bucket/new"], r"s3://bucket/new: .* only gs://BUCKET/"),
        (["--images", "FOOD/train", "--out", "gs://bucket/out"], "gs://bucket/out: only what is on this machine"),
    ],
)
def test_mistakes_get_one_line(arguments: list[str], message: str, run: Path, tiny_food: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0_1.jpg").write_text("no picture")
    shutil.copy(tiny_food / "train" / "0_0.jpg", tmp_path / "broken")
    places = {
        "BROKEN": str(tmp_path / "broken"),
        "FOOD": str(tiny_food),
        "EMPTY": str(tmp_path / "empty"),
        "RUN": str(run),
    }
    words = [re.sub("FOOD|EMPTY|BROKEN|RUN", lambda match: places[match[0]], word) for word in arguments]
    with pytest.raises(UserError, match=message) as error:
        main([str(run), "--out", str(tmp_path / "out"), *words])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", ["gs://bucket/new", "gs:/bucket/new", "s3://bucket/new"])
def test_a_bucket_is_no_local_folder_of_that_name(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pathlib takes a bucket's address for a folder `gs:` with others in it."""
    monkeypatch.chdir(tmp_path)
    for folder in (place, Path(place)):
        with pytest.raises(UserError, match="bucket/new: only what is on this machine"):
            Page(folder, "landscape", "a title")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_run_below_the_saddle_may_be_in_a_bucket(
    saddle: Path, tiny_food: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    monkeypatch.setattr(files, "_check_reachable", lambda bucket: None)
    monkeypatch.setattr(files, "require", lambda package, feature, extra: None)
    monkeypatch.setattr(survey, "check_free", lambda workdir, overwrite: None)
    monkeypatch.setattr(survey, "begin_from", lambda workdir, *run, **more: begun.append(workdir))
    main([str(saddle), "--images", str(tiny_food / "train"), "--out", str(tmp_path), "--escape", "gs://b/new", *FAST])
    assert [(os.fspath(workdir), is_remote(workdir)) for workdir in begun] == [("gs://b/new", True)]


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_is_refused(config: Config, tiny_food: Path, tmp_path: Path) -> None:
    variables = init_variables(config)
    variables["params"]["head"]["bias"] = jnp.full(3, jnp.nan)
    begin_from(tmp_path / "run", config, variables)
    with pytest.raises(UserError, match="the loss is nan at these parameters"):
        landscape_metrics(config, variables, load_splits(config.data, 3, seed=0, progress=False).valid)
    with pytest.raises(UserError, match="the loss is nan at these parameters"):
        main([str(tmp_path / "run"), "--images", str(tiny_food / "train"), *FAST])


@pytest.mark.slow
def test_the_loss_is_validations_or_a_training_steps(config: Config) -> None:
    """By the running statistics, or by those of all 21 pictures at once."""
    pictures = load_splits(config.data, 3, seed=0, progress=False).train
    variables, model, loss = init_variables(config), make_model(config.model), make_loss(config.loss, 3)
    batch = {"image": np.asarray(pictures.images), "label": pictures.labels}
    running = means(batch_sums(loss, predict_logits(model, variables, batch["image"]), batch))["loss"]
    together, _ = loss_fn(model, loss, variables["params"], variables["batch_stats"], batch)
    for statistics, expected in (("running", running), ("batch", together)):
        chosen = dataclasses.replace(config, landscape=LandscapeConfig(statistics=statistics))
        objective = make_objective(chosen, variables["batch_stats"], pictures)
        assert objective.value(variables["params"]) == pytest.approx(float(expected), rel=1e-5), statistics
    assert float(running) != pytest.approx(float(together), rel=1e-3)


def test_the_choice_of_pictures_is_the_seeds() -> None:
    first, again, other = (choose_positions(100, 5, seed=seed).tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert choose_positions(3, 5, seed=0).tolist() == [0, 1, 2]

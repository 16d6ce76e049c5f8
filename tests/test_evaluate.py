"""The command and the public function: what they answer, write, refuse and leave alone."""

import csv
import importlib
import json
import math
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from conftest import NUM_CLASSES, VALID_PER_CLASS
from PIL import Image

import jaxfood
from jaxfood.config import load_config
from jaxfood.data.splits import load_splits
from jaxfood.errors import UserError
from jaxfood.evaluation import measure
from jaxfood.evaluation.labelled import index_labelled
from jaxfood.inference.probabilities import predict_probabilities
from jaxfood.model.networks import init_variables
from jaxfood.runs.directory import begin, write_config
from jaxfood.runs.pictures import write_pictures
from jaxfood.training.saved import begin_from

evaluate = importlib.import_module("jaxfood.evaluate")

pytestmark = pytest.mark.usefixtures("narrow")

PICTURES = NUM_CLASSES * VALID_PER_CLASS


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory, tiny_food: Path) -> Callable[..., Path]:
    """Makes runs of fresh weights."""

    def make(seed: int = 0, scale: float = 1.7) -> Path:
        own = (f"data.root={tiny_food}", "data.image_size=32", f"model.num_classes={NUM_CLASSES}")
        config = load_config(None, (*own, "train.batch_size=4", f"train.seed={seed}"))
        workdir = tmp_path_factory.mktemp("runs") / "run"
        params = jax.tree.map(lambda leaf: scale * leaf, (fresh := init_variables(config))["params"])  # answers differ
        begin_from(workdir, config, fresh | {"params": params}, classes=tuple(map(str, range(NUM_CLASSES))))
        return workdir

    return make


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path]) -> Path:
    return make_run()


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the report was called with; it writes its path's name alone."""
    calls: list[dict[str, Any]] = []

    def write_report(path: Path, runs: Any, evaluation: Any = None, figures: Any = ()) -> None:
        calls.append({"path": path, "runs": list(runs), "evaluation": evaluation, "figures": list(figures)})
        path.write_text(path.name)

    module = ModuleType("jaxfood.report.html")
    module.write_report = write_report  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jaxfood.report.html", module)
    return calls


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.smoke
def test_the_public_name_can_be_called_whoever_imports_the_module_first() -> None:
    assert evaluate is sys.modules["jaxfood.evaluate"]
    with pytest.raises(TypeError, match="missing 2 required positional arguments: 'runs' and 'images'"):
        jaxfood.evaluate()  # type: ignore[call-arg]
    program = """
        import inspect, sys
        import jaxfood
        found = jaxfood.evaluate
        import jaxfood.evaluate
        from jaxfood.evaluate import main
        for each in (found, jaxfood.evaluate):
            assert callable(each)
            assert list(inspect.signature(each).parameters)[:4] == ["runs", "images", "which", "tta"]
        assert "jax" not in sys.modules and "sklearn" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


@pytest.mark.slow
def test_the_function_returns_what_the_runs_answers_are_worth(run: Path, tiny_food: Path) -> None:
    found = jaxfood.evaluate([run], tiny_food / "valid", progress=False)
    expected = predict_probabilities([run], tiny_food / "valid", progress=False)
    truth = np.repeat(np.arange(NUM_CLASSES), VALID_PER_CLASS)
    right = expected.argmax(axis=1) == truth
    assert found["pictures"] == PICTURES
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["loss"] == pytest.approx(-np.log(expected[np.arange(PICTURES), truth]).mean(), rel=1e-5)
    assert found["top3_accuracy"] == 1
    assert np.array(found["confusion"]).sum(axis=1).tolist() == [VALID_PER_CLASS] * NUM_CLASSES
    assert [each["name"] for each in found["classes"]] == ["0", "1", "2"]
    assert found["classes"][0].keys() == {"name", "precision", "recall", "f1", "support"}
    contract = ("accuracy_low", "accuracy_high", "expected_calibration_error")
    assert all(isinstance(found[key], float) for key in contract)
    mistake = found["confident_mistakes"][0]
    row = np.flatnonzero(~right)[expected.max(axis=1)[~right].argmax()]
    assert mistake["file"] == f"{truth[row]}_{row % VALID_PER_CLASS}.jpg"
    with pytest.raises(UserError, match=r"^--tta: .* trained without augmentation"):
        jaxfood.evaluate([run], tiny_food / "valid", tta=1, progress=False)
    assert mistake["probability"] == pytest.approx(expected.max(axis=1)[~right].max())
    assert (found["runs"][0]["run"], found["ensemble_against_first"]) == (str(run), None)
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
def test_the_command_writes_its_files_and_one_line(
    run: Path, tiny_food: Path, page: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.main([str(run), "--images", str(tiny_food / "valid")])
    out = run / "evaluation" / "valid"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"whether these pictures were trained on cannot be told of {run}"
    numbers = json.loads((out / "evaluation.json").read_text())
    assert said[1:] == [
        f"{run}: accuracy {100 * numbers['accuracy']:.1f} % (95 % interval {100 * numbers['accuracy_low']:.1f} to "
        f"{100 * numbers['accuracy_high']:.1f}), top-3 100.0 %, loss {numbers['loss']:.4f}, expected calibration error "
        f"{numbers['expected_calibration_error']:.3f} on 9 pictures: {out}/report.html"
    ]
    assert sorted(path.name for path in out.iterdir()) == sorted(numbers["files"])
    names = {"confusion", "reliability", "classes", "mistakes", "uncertain"}
    assert {f"{name}.png" for name in names} <= set(numbers["files"])
    for path in out.glob("*.png"):
        Image.open(path).verify()
    rows = table(out / "predictions.csv")
    assert rows[0] == ["file", "truth", "answer", "probability"]
    assert [row[:2] for row in rows[1:]] == [[f"{label}_{n}.jpg", str(label)] for label in range(3) for n in range(3)]
    assert sum(row[1] == row[2] for row in rows[1:]) == round(9 * numbers["accuracy"])
    suspects = table(out / "suspected_labels.csv")
    assert suspects[0] == ["rank", "file", "label", "suggested", "self_confidence", "normalized_margin"]
    assert len(suspects) == 1 + numbers["suspected_labels"]["count"]
    (call,) = page
    assert (call["path"], call["runs"], call["evaluation"]) == (out / "report.html", [run], numbers)
    assert {"mistakes", "uncertain"} <= {figure.name for figure in call["figures"]} < {*names, "suspected_labels"}


@pytest.mark.slow
def test_an_earlier_evaluation_is_replaced_and_nothing_else(
    run: Path, tiny_food: Path, tmp_path: Path, page: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    explained: list[Any] = []

    def explain(runs: Any, index: Any, rows: Any, which: Any, progress: Any, *, cache_dir: Any) -> list[Any]:
        explained.append((list(runs), list(rows), which))
        return [SimpleNamespace(name="why", png=b"png", title="why", caption="", alt="")]

    module = ModuleType("jaxfood.evaluation.explanations")
    module.explain = explain  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jaxfood.evaluation.explanations", module)
    out = tmp_path / "out"
    arguments = [str(run), "--images", str(tiny_food / "valid" / "1_1.jpg"), "--out", str(out)]
    evaluate.main([*arguments, "--explain", "3"])
    assert explained == [([run], [0], "best")]  # there is but one picture
    assert (out / "why.png").read_bytes() == b"png"
    (out / "notes.txt").write_text("mine")
    numbers = json.loads((out / "evaluation.json").read_text())
    for name in ("..", "notes.txt", "../notes.png"):  # whoever wrote that
        numbers["files"].append(name)
    (out / "evaluation.json").write_text(json.dumps(numbers))
    (tmp_path / "notes.png").write_text("mine")
    evaluate.main(arguments)
    assert not (out / "why.png").exists()
    assert (out / "notes.txt").read_text() == (tmp_path / "notes.png").read_text() == "mine"
    assert json.loads((out / "evaluation.json").read_text())["pictures"] == 1


def test_a_folder_of_something_else_is_left_alone(tiny_food: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"^--out .*: it holds thesis.tex and no evaluation.json, so .*: choose "):
        evaluate.main(["run", "--images", str(tiny_food / "valid"), "--out", str(tmp_path)])
    (tmp_path / "evaluation.json").write_text('{"their": "own"}')
    with pytest.raises(UserError, match="choose another folder"):
        evaluate.main(["run", "--images", str(tiny_food / "valid"), "--out", str(tmp_path)])


@pytest.mark.slow
def test_several_runs_answer_together_and_are_compared(
    run: Path,
    make_run: Callable[..., Path],
    tiny_food: Path,
    page: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = make_run(1)
    evaluate.main([str(run), str(other), "--images", str(tiny_food / "valid")])
    out = run / "evaluation" / "valid-2-runs"
    numbers = json.loads((out / "evaluation.json").read_text())
    truth = np.repeat(np.arange(NUM_CLASSES), VALID_PER_CLASS)
    alone = [predict_probabilities([each], tiny_food / "valid", progress=False) for each in (run, other)]
    right = [each.argmax(axis=1) == truth for each in (*alone, np.mean(alone, axis=0))]
    assert [each["accuracy"] for each in numbers["runs"]] == pytest.approx([each.mean() for each in right[:2]])
    assert numbers["accuracy"] == pytest.approx(right[2].mean())
    assert numbers["runs"][0]["p_value"] is None
    for found, answers in ((numbers["runs"][1], right[1]), (numbers["ensemble_against_first"], right[2])):
        assert found["only_first_right"] == (right[0] & ~answers).sum()
        assert found["only_this_right"] == (answers & ~right[0]).sum()
    said = capsys.readouterr().out.splitlines()
    assert said[-3].startswith(f"{run}: accuracy ")
    assert said[-2].startswith(f"{other}: accuracy ")
    assert "McNemar's exact test: p = " in said[-2]
    assert said[-1].startswith("2 runs together: accuracy ")
    assert "runs.png" in numbers["files"]


@pytest.mark.slow
def test_what_cannot_be_read_or_flatters_is_said_and_enters_no_figure(
    make_run: Callable[..., Path], tiny_food: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(tiny_food / "valid", folder)
    (folder / "0_broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("")
    shutil.copy(folder / "0_0.jpg", folder / "2_copy.jpg")
    shutil.copy(tiny_food / "train" / "1_0.jpg", folder / "1_trained.jpg")
    run = make_run(2)
    config = load_config(None, (f"data.root={tiny_food}", "data.image_size=32", "logging.progress=false"))
    write_pictures(run, load_splits(config.data, seed=0, progress=False).records)
    found = jaxfood.evaluate([run], folder, progress=False)
    assert found["pictures"] == sum(map(sum, found["confusion"])) == PICTURES + 2
    assert [each["file"] for each in found["unreadable"]] == ["0_broken.jpg"]
    assert found["repeats"]["groups"] == [["0_0.jpg", "2_copy.jpg"]]
    assert (found["repeats"]["copies"], found["repeats"]["under_two_labels"]) == (1, 1)
    (of_run,) = found["runs"]
    assert (of_run["trained_on"], of_run["validated_on"]) == (1, PICTURES + 1)
    said = "\n".join(found["remarks"])
    assert "passed over in" in said
    assert "1 of 12 pictures cannot be read and enter no figure (0_broken.jpg: " in said
    assert "1 pictures stand under two labels, by the same bytes: mixed/0_0.jpg = mixed/2_copy.jpg" in said
    assert "1 of the 11 pictures are copies of others: with each content counted once the accuracy is " in said
    assert "1 of the 11 pictures stood in training, so that the figures flatter; the accuracy on the other 10" in said
    assert "10 of the 11 pictures chose the best epoch of a run" in said


@pytest.mark.slow
def test_a_run_whose_weights_are_broken_is_named(make_run: Callable[..., Path], tiny_food: Path) -> None:
    run = make_run(4, scale=math.inf)
    with pytest.raises(UserError, match=rf"^{run}: the probabilities are not finite numbers, .* \(--which\)$"):
        jaxfood.evaluate([run], tiny_food / "valid", progress=False)


def classes_of(images: Path, classes: tuple[str, ...], order: str = "name") -> tuple[list[int], tuple[str, ...]]:
    index, names = index_labelled(images, classes, order)
    return index.labels.tolist(), names


def test_class_folders_are_the_runs_classes_by_name(food: Callable[..., Path]) -> None:
    root = food("soup/1.png", "bread/1.png")
    assert classes_of(root, ("bread", "egg", "soup")) == ([0, 2], ("bread", "egg", "soup"))
    with pytest.raises(UserError, match=r"has folders that are no classes of train: bread; .*the classes are cake, "):
        index_labelled(root, ("cake", "soup"), "name")


def test_a_run_of_numbers_takes_the_folders_names_if_they_are_as_many(food: Callable[..., Path]) -> None:
    root = food("dish 10/1.png", "dish 2/1.png", "dish 1/1.png")
    assert classes_of(root, ("0", "1", "2")) == ([0, 1, 2], ("dish 1", "dish 10", "dish 2"))
    assert classes_of(root, ("0", "1", "2"), "natural")[1] == ("dish 1", "dish 2", "dish 10")
    with pytest.raises(UserError, match=r"has 3 class folders .*its 4 classes by numbers alone: name the folders 0 to"):
        index_labelled(root, ("0", "1", "2", "3"), "name")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.png", "b.png"), r"^the pictures in .* have no label \(a.png, b.png\), and evaluate .*; to answer alone, "),
        (("0_1.png", "b.png"), r"^1 of the 2 pictures in .* have no label \(b.png\)"),
        (("0_1.png", "1_7.png", "3_1.png", "9_1.png"), r"^2 of the 4 .*\(9_1.png has 9, 3_1.png has 3\): it has 3 cl"),
    ],
)
def test_labels_that_are_not_there_or_not_the_runs(food: Callable[..., Path], names: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        index_labelled(food(*names), ("bread", "egg", "soup"), "name")


def test_other_mistakes_are_a_line_before_the_work(
    tiny_food: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid = ["--images", str(tiny_food / "valid")]
    for arguments, message in (
        (["run", *valid, "--tta", "-1"], r"argument --tta: it takes how many views, 0 to 1000, not '-1'"),
        (["run", *valid, "--explain", "101"], r"argument --explain: it takes how many pictures, 0 to 100, not"),
        ([str(tmp_path / "none"), *valid], r"none is not a run: it does not exist"),
        (["run", "a.jpg", "--images", "*.jpg"], r"^a.jpg is not a run: --images takes one word"),
        (["run", *valid, "--out", str(tiny_food / "valid" / "0_0.jpg")], r"is a file\); choose another --out"),
        (["run", *valid, "--out", "gs://bucket/out"], r"^--out gs://bucket/out: only what is on this machine"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.main(arguments)
    monkeypatch.setattr(measure.jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"^evaluate works in one process, and this is one of 2: "):
        jaxfood.evaluate(["run"], tiny_food / "valid")


def test_without_scikit_learn_the_extra_is_named(tiny_food: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sklearn" else name)
    with pytest.raises(UserError, match=r"^evaluate needs scikit-learn: pip install 'jaxfood\[evaluate\]'$"):
        jaxfood.evaluate(["run"], tiny_food / "valid")


def test_a_new_training_in_a_runs_place_leaves_no_old_evaluation(tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin(run, ("a", "b"))
    write_config(run, load_config())
    (run / "evaluation" / "valid").mkdir(parents=True)
    begin(run, ("a", "b"), overwrite=True)
    assert not (run / "evaluation").exists()

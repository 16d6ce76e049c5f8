"""`jaxfood.export`: the files answer as the run does, in programs that do not have this package."""

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
import pytest

from jaxfood import cli, export, predict_probabilities
from jaxfood.config import load_config
from jaxfood.data.decode import decode_picture
from jaxfood.errors import UserError
from jaxfood.exporting.trained import Trained, describe, load_trained, plain_model
from jaxfood.model.network import Network
from jaxfood.model.networks import init_variables, make_model, predict_logits
from jaxfood.runs.directory import load_run, write_config
from jaxfood.runs.folds import write_folds
from jaxfood.training.saved import begin_from

pytestmark = pytest.mark.usefixtures("narrow")

NORMALIZE = "model.normalize=0.485,0.456,0.406,0.229,0.224,0.225"
NETWORKS = {
    "classifier": ("model.name=classifier",),
    "classifier, 64 px": ("model.name=classifier", "data.image_size=64", NORMALIZE),
    "resnet": ("model.name=resnet", "model.width=8"),
    "resnet, blocks": ("model.name=resnet", "model.width=8", "model.blocks=2,0", "model.dropout=0.5", NORMALIZE),
    "resnet18": ("model.name=resnet18", NORMALIZE),
    "resnet18, small": ("model.name=resnet18", "model.stem=small"),
    "resnet34": ("model.name=resnet34",),
}
CLASSES = ("Bread", "Dairy 乳製品", "Egg")


def make(*overrides: str) -> Trained:
    """A network whose every leaf is far from where it starts, so that mixing two up shows, and that is unsure."""
    config = load_config(None, ("data.image_size=32", "model.num_classes=3", *overrides))
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape).astype(np.float32)
        low, high = {"var": (0.3, 1), "scale": (0.5, 1.5)}.get(name, (-0.1, 0.1))
        sign = rng.choice([1, 1, -1], leaf.shape) if name == "scale" else 1
        return (sign * rng.uniform(low, high, leaf.shape)).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(lambda: init_variables(config)))
    trained = Trained(plain_model(make_model(config.model)), variables, config, CLASSES, step=7)
    logits, head = fused_logits(trained, pictures(trained)), variables["params"]["head"]
    deviation = (logits - logits.mean(0)).std()
    head["bias"] = (head["bias"] - logits.mean(0)) / deviation
    head["kernel"] = head["kernel"] / deviation
    return trained


def pictures(trained: Trained) -> np.ndarray:
    """Three: noise, dark patches, and bright ones."""
    rng = np.random.default_rng(1)
    size = trained.image_size
    coarse = rng.uniform(0, 255, (3, 4, 4, 3)).repeat(size // 4, 1).repeat(size // 4, 2)
    coarse[0] = rng.uniform(0, 255, coarse[0].shape)
    coarse[1] = coarse[1] / 4
    return coarse.astype(np.uint8)


def expected(trained: Trained, images: np.ndarray) -> np.ndarray:
    """By the network as it is trained and predicts."""
    probabilities = np.asarray(jax.nn.softmax(fused_logits(trained, images)))
    # Of a network that is sure, or sees no difference, all files would answer alike.
    assert probabilities.std(axis=0).max() > 0.1
    return probabilities


def fused_logits(trained: Trained, images: np.ndarray) -> np.ndarray:
    return np.asarray(_logits(make_model(trained.config.model).clone(dtype=None), trained.variables, images))


@partial(jax.jit, static_argnums=0)
def _logits(model: Network, variables: Any, images: jax.Array) -> jax.Array:
    return predict_logits(model, variables, images)


def to_onnx(trained: Trained) -> bytes:
    pytest.importorskip("onnx", reason="writes .onnx files, and is not installed")
    from jaxfood.exporting import onnx_networks

    return onnx_networks.to_onnx(trained)


def to_stablehlo(trained: Trained) -> bytes:
    pytest.importorskip("flatbuffers", reason="writes .stablehlo files, and is not installed")
    from jaxfood.exporting import stablehlo

    return stablehlo.to_stablehlo(trained)


def run_onnx(content: bytes, images: np.ndarray) -> np.ndarray:
    session = onnxruntime_session(content)
    (answer,) = session.run(["probabilities"], {"images": images})
    return answer


def onnxruntime_session(content: bytes) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs .onnx files, and is not installed")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_stablehlo(content: bytes, images: np.ndarray) -> np.ndarray:
    return np.asarray(jax.export.deserialize(bytearray(content)).call(images))


# The networks.


def networks(*fast: str) -> list[Any]:
    """All of them; those that are not named take longer and show no more."""
    return [pytest.param(name, marks=[] if name in fast else [pytest.mark.slow]) for name in NETWORKS]


@pytest.mark.parametrize("name", networks("classifier, 64 px", "resnet, blocks", "resnet18"))
def test_onnx_answers_as_the_network(name: str) -> None:
    trained = make(*NETWORKS[name])
    images = pictures(trained)
    wanted, content = expected(trained, images), to_onnx(trained)
    np.testing.assert_allclose(run_onnx(content, images), wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(run_onnx(content, images[:1]), wanted[:1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", networks("resnet, blocks"))
def test_stablehlo_answers_as_the_network(name: str) -> None:
    trained = make(*NETWORKS[name])
    images = pictures(trained)
    wanted, content = expected(trained, images), to_stablehlo(trained)
    np.testing.assert_allclose(run_stablehlo(content, images), wanted, rtol=0, atol=1e-6)


@pytest.mark.smoke
def test_stablehlo_is_one_program_of_plain_layers_for_every_platform() -> None:
    exported = jax.export.deserialize(bytearray(to_stablehlo(make(*NETWORKS["classifier"]))))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert [str(aval) for aval in (*exported.in_avals, *exported.out_avals)] == [
        "uint8[batch,32,32,3]",
        "float32[batch,3]",
    ]
    program = exported.mlir_module()
    # The CPU's forms loop over groups of pictures, or multiply tiles of them. JAX itself chooses by platform between
    # convolutions, and between products, which are all alike.
    convolutions = re.findall(r"stablehlo\.convolution\(.* : \(", program)
    assert (len(convolutions), len(set(convolutions))) == (3 * 5, 5)
    assert program.count("stablehlo.dot_general") == 3 * 3
    assert "stablehlo.while" not in program
    assert "gather" not in program
    assert "precision HIGHEST" in program
    assert "precision DEFAULT" not in program


def test_a_network_without_a_graph_is_no_silent_mistake() -> None:
    class Other(Network):
        pass

    trained = make(*NETWORKS["classifier"])
    with pytest.raises(TypeError, match="no ONNX graph for Other"):
        to_onnx(dataclasses.replace(trained, model=Other()))
    trained.variables["params"]["attention"] = {"kernel": np.ones((2, 2), np.float32)}
    with pytest.raises(TypeError, match=r"no layer for .*attention/kernel"):
        to_onnx(trained)


# What the files say of themselves.


def test_onnx_tells_classes_sizes_and_versions() -> None:
    onnx = pytest.importorskip("onnx")
    trained = make(*NETWORKS["resnet, blocks"], "data.resize=crop", "data.exif_orientation=true", "data.decode=fast")
    content = to_onnx(trained)
    session = onnxruntime_session(content)
    told = session.get_modelmeta().custom_metadata_map
    known = {key: json.loads(value) if key in JSON_KEYS else value for key, value in told.items()}
    assert known == describe(trained)
    assert known["classes"] == list(CLASSES)
    assert (known["image_size"], known["resize"], known["exif_orientation"], known["step"]) == (32, "crop", True, 7)
    assert known["normalize"] == list(trained.config.model.normalize)
    assert "minus the mean" in known["scaling"]
    assert known["decode"] == "fast"
    assert "CenterCrop(32)" in known["resizing"]
    assert "draft" in known["resizing"]
    (images,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 32, 32, 3])
    assert (probabilities.name, probabilities.shape) == ("probabilities", ["batch", 3])
    model = onnx.load_from_string(content)
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"Dropout", "BatchNormalization"}


JSON_KEYS = ("classes", "image_size", "exif_orientation", "normalize", "step")


# The command.


@pytest.fixture
def packages() -> None:
    """The command asks for them before anything else."""
    for package in ("onnx", "flatbuffers"):
        pytest.importorskip(package, reason="export writes with it, and it is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of given weights, that computes in bfloat16."""
    trained = make(*NETWORKS["resnet"], "model.dtype=bfloat16", "device.count=1")
    workdir = tmp_path_factory.mktemp("export") / "run"
    begin_from(workdir, trained.config, trained.variables, classes=CLASSES)
    return workdir


@pytest.mark.slow
@pytest.mark.usefixtures("packages")
def test_export_writes_both_files(
    run: Path, tmp_path: Path, tiny_food: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("food.onnx", "food.STABLEHLO"):
        export.main([str(run), str(tmp_path / name)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["food.STABLEHLO", "food.STABLEHLO.json", "food.onnx"]
    onnx, note, stablehlo, _, where = capsys.readouterr().out.splitlines()
    size = (tmp_path / "food.onnx").stat().st_size / 1e6
    assert onnx == (
        f"{tmp_path}/food.onnx: ONNX, {size:.1f} MB: uint8 [batch, 32, 32, 3] to probabilities [batch, 3], by resnet "
        f"(best, step 0) of {run}"
    )
    assert note.endswith("computes in float32, where the run does in bfloat16: answers differ by what that rounds")
    assert "STABLEHLO: StableHLO," in stablehlo
    assert where.endswith(f"classes, resizing and scaling stand in {tmp_path / 'food.STABLEHLO.json'}")
    known = json.loads((tmp_path / "food.STABLEHLO.json").read_text("utf-8"))
    assert known == describe(load_trained(run, 0))

    paths = sorted((tiny_food / "test").iterdir())
    images = np.stack([decode_picture(path, known["image_size"], resize=known["resize"]) for path in paths])
    answers = run_onnx((tmp_path / "food.onnx").read_bytes(), images)
    np.testing.assert_allclose(run_stablehlo((tmp_path / "food.STABLEHLO").read_bytes(), images), answers, atol=1e-5)
    of_run = predict_probabilities([run], tiny_food / "test", progress=False)
    np.testing.assert_allclose(answers, of_run, rtol=0, atol=0.05)  # bfloat16 has three digits
    assert answers.std(axis=0).max() > 0.05


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["RUN", "food.tflite"],
            r"^FILE food\.tflite: its suffix is to be \.stablehlo .* or \.onnx .*convert to-torch$",
        ),
        (["RUN", "food"], r"^FILE food: its suffix is to be \.stablehlo"),
        (["RUN", "there.onnx"], r"^there\.onnx is there already: give --overwrite to replace it, or another name$"),
        (["RUN", "a.stablehlo"], r"^a\.stablehlo\.json is there already: give --overwrite"),
        (["RUN", "no/food.onnx"], r"^FILE no/food\.onnx: there is no folder .*/no; make it first$"),
        (
            ["RUN1", "RUN2", "a.onnx"],
            r"^an exported file holds one run, so give one RUN and one FILE, not RUN1, RUN2, a",
        ),
        (["RUN"], r"FILE"),
    ],
)
@pytest.mark.usefixtures("packages")
def test_what_export_cannot_write_is_said_before_the_work(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "set_up_jax", lambda *_: pytest.fail("work begins"))
    for name in ("there.onnx", "a.stablehlo.json"):
        Path(name).write_text("kept", "utf-8")
    with pytest.raises(UserError, match=message):
        export.main(words)
    assert {path.read_text("utf-8") for path in tmp_path.iterdir()} == {"kept"}


@pytest.mark.usefixtures("packages")
def test_export_overwrites_if_told(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "food.stablehlo"
    for path in (file, tmp_path / "food.stablehlo.json"):
        path.write_text("old", "utf-8")
    export.main([str(run), "--which", "last", str(file), "--overwrite"])
    assert json.loads((tmp_path / "food.stablehlo.json").read_text("utf-8"))["step"] == 0
    assert file.stat().st_size > 1000


@pytest.mark.parametrize(("suffix", "package"), [("onnx", "onnx"), ("stablehlo", "flatbuffers")])
def test_a_missing_package_is_named(suffix: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "jaxfood.extras.importlib.util.find_spec", lambda name: None if name == package else find_spec(name)
    )
    with pytest.raises(UserError, match=rf"a\.{suffix} needs {package}: pip install 'jaxfood\[export\]'$"):
        export.main(["RUN", str(tmp_path / f"a.{suffix}")])


def test_what_no_file_can_hold(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="has no checkpoint 9; there are: best, last, 0"):
        load_trained(run, "9")
    monkeypatch.setattr("jaxfood.exporting.trained.MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"GiB of weights, and an exported file takes 2"):
        load_trained(run, "best")
    model, variables, config = load_run(run)
    variables["params"]["head"]["bias"] = np.array([0, np.nan, 1], np.float32)
    monkeypatch.setattr("jaxfood.exporting.trained.load_run", lambda *_: (model, variables, config))
    with pytest.raises(UserError, match=r"of step 0 has NaN or infinity in 1 of .*head/bias \(1 of 3\): give --which"):
        load_trained(run, "best")


@pytest.mark.usefixtures("packages")
def test_folds_are_several_runs(run: Path, tmp_path: Path) -> None:
    write_folds(tmp_path, {"folds": 2, "accuracies": []})
    write_config(tmp_path, load_config())
    with pytest.raises(UserError, match=r"is not a run but holds 2, its folds: name one of them"):
        export.main([str(tmp_path), str(tmp_path / "a.onnx")])


@pytest.mark.slow
@pytest.mark.usefixtures("packages")
def test_files_run_where_this_package_is_not(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="runs .onnx files, and is not installed")
    for name in ("food.onnx", "food.stablehlo"):
        export.main([str(run), str(tmp_path / name)])
    trained = load_trained(run, "best")
    images = pictures(trained)
    np.save(tmp_path / "images.npy", images)
    program = """
        import sys
        sys.modules |= dict.fromkeys(("jaxfood", "flax", "onnx"))  # importing them raises
        import jax.export, numpy, onnxruntime
        images = numpy.load("images.npy")
        answer = jax.export.deserialize(bytearray(open("food.stablehlo", "rb").read())).call(images)
        numpy.save("stablehlo.npy", answer)
        session = onnxruntime.InferenceSession("food.onnx")
        numpy.save("onnx.npy", session.run(None, {"images": images})[0])
        assert not {name for name in sys.modules if name.startswith("jaxfood.")}
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, check=True)
    wanted = expected(trained, images)
    np.testing.assert_allclose(np.load(tmp_path / "stablehlo.npy"), wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "onnx.npy"), wanted, rtol=0, atol=1e-5)

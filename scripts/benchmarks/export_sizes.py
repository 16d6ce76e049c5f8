"""What an exported file weighs in float32, in half of that and in int8, and what that does to the answers.

    python scripts/benchmarks/export_sizes.py RUN --images DIR --calibration DIR [--keep DIR]

Each file answers for all labelled pictures of `--images`, as the run resizes them, in batches of 32 on this machine's
CPU; the first row is the run itself, as predict has it. ONNX Runtime's own tools make the smaller .onnx files of the
exported one: float16 by `onnxruntime.transformers.float16`, int8 by `onnxruntime.quantization`, "static" with the
ranges that values have over `--calibrated` pictures of `--calibration`, "dynamic" with those of each batch. The
.stablehlo of bfloat16 is exported with kernels of that type, which it computes in.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from measuring import Parser, in_turns, print_setting, print_table
from onnxruntime import quantization
from onnxruntime.transformers.float16 import convert_float_to_float16

from jaxfood.data.decode import decode_picture
from jaxfood.data.index import PictureIndex, index_pictures
from jaxfood.exporting.onnx_networks import to_onnx
from jaxfood.exporting.stablehlo import to_stablehlo
from jaxfood.exporting.trained import Trained, load_trained
from jaxfood.model.networks import make_model, predict_logits

Answer = Callable[[np.ndarray], np.ndarray]  # uint8 [B, H, W, 3] to probabilities [B, num_classes]
BATCH = 32


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("run", metavar="RUN", type=Path)
    parser.add_argument("--images", required=True, help="labelled pictures to answer for")
    parser.add_argument("--calibration", required=True, help="other pictures of the same kind")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="write the files there")
    parser.add_numbers(calibrated=256, turns=5)
    arguments = parser.parse_args()
    trained = load_trained(arguments.run, "best")
    index = index_pictures(arguments.images, classes=trained.classes)
    others = index_pictures(arguments.calibration, labelled=False)
    chosen = np.random.default_rng(0).permutation(len(others))[: arguments.calibrated]
    pictures, calibration = decoded(trained, index, np.arange(len(index))), decoded(trained, others, np.sort(chosen))
    print_setting(
        f"onnxruntime {onnxruntime.__version__}; {arguments.run}, step {trained.step}; {len(index)} pictures\n"
    )
    folder = arguments.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    make_files(trained, calibration, folder)
    report(trained, folder, pictures, np.asarray(index.labels), arguments.turns)


def decoded(trained: Trained, index: PictureIndex, rows: np.ndarray) -> np.ndarray:
    """Some pictures of an index, as the run sees them, `[N, H, W, 3]`."""
    data = trained.config.data
    how: dict[str, Any] = {"exif_orientation": data.exif_orientation, "resize": data.resize}
    return np.stack([decode_picture(index.paths[row], data.image_size, **how) for row in rows])


def make_files(trained: Trained, calibration: np.ndarray, folder: Path) -> None:
    (folder / "float32.stablehlo").write_bytes(to_stablehlo(trained))
    (folder / "bfloat16.stablehlo").write_bytes(to_stablehlo(in_bfloat16(trained)))
    path = folder / "float32.onnx"
    path.write_bytes(to_onnx(trained))
    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), folder / "float16.onnx")
    # What is no layer stays as it is: probabilities would come in 256 steps.
    outside = [node.name for node in onnx.load(path).graph.node if node.op_type in ("Div", "Sub", "Softmax")]
    quantization.quantize_static(
        *(path, folder / "int8, static.onnx", Calibration(calibration)),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        nodes_to_exclude=outside,
    )
    quantization.quantize_dynamic(path, folder / "int8, dynamic.onnx", per_channel=True)


def in_bfloat16(trained: Trained) -> Trained:
    """With kernels of bfloat16, which it computes in; BatchNorm's vectors stay as they are."""

    def cast(path: Any, leaf: np.ndarray) -> Any:
        return leaf.astype(jnp.bfloat16) if path[-1].key == "kernel" else leaf

    variables = jax.tree_util.tree_map_with_path(cast, trained.variables)
    return dataclasses.replace(trained, model=trained.model.clone(dtype=jnp.bfloat16), variables=variables)


class Calibration(quantization.CalibrationDataReader):
    """Batches of pictures."""

    def __init__(self, pictures: np.ndarray) -> None:
        self._batches = iter(batches(pictures))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def batches(pictures: np.ndarray) -> Iterator[np.ndarray]:
    return (pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH))


def report(trained: Trained, folder: Path, pictures: np.ndarray, labels: np.ndarray, turns: int) -> None:
    """Print a row for the run, and one for each file, the smallest last."""
    files = sorted((path for path in folder.iterdir() if path.suffix in OPENERS), key=lambda path: -path.stat().st_size)
    answers = {Path("the run"): answer_of_run(trained)} | {path: OPENERS[path.suffix](path) for path in files}
    probabilities = {path: np.concatenate(list(map(answer, batches(pictures)))) for path, answer in answers.items()}
    reference = next(iter(probabilities.values()))
    batch = pictures[:BATCH]
    seconds = in_turns({str(path): partial(answer, batch) for path, answer in answers.items()}, turns)

    def rows() -> Iterator[tuple[object, ...]]:
        for path, found in probabilities.items():
            size = f"{path.stat().st_size / 1e6:.2f}" if path in files else ""
            correct = int((found.argmax(1) == labels).sum())
            other = int((found.argmax(1) != reference.argmax(1)).sum())
            yield (
                *(path.suffix, path.stem, size, f"{correct / len(labels):.4f}", other),
                *(f"{abs(found - reference).max():.1e}", f"{1000 * seconds[str(path)].core / BATCH:.1f}"),
            )

    columns = ("file", "numbers", "MB", "accuracy", "other answers", "largest difference", "ms of a core a picture")
    print_table(columns, rows())


def answer_of_run(trained: Trained) -> Answer:
    """The network as it predicts, in the form of the platform."""
    model = make_model(trained.config.model)
    predict = jax.jit(lambda images: jax.nn.softmax(predict_logits(model, trained.variables, images)))
    return lambda images: np.asarray(predict(images))


def open_onnx(path: Path) -> Answer:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def open_stablehlo(path: Path) -> Answer:
    call = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: np.asarray(call(images))


OPENERS = {".onnx": open_onnx, ".stablehlo": open_stablehlo}


if __name__ == "__main__":
    main()

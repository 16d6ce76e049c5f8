"""Trained runs explained: sheets of pictures, filters, and maps of layers, as figures of a report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from jaxfood.data.index import PictureIndex
from jaxfood.data.pictures import Pictures
from jaxfood.errors import first_few
from jaxfood.evaluation.explanations.grad_cam import grad_cam
from jaxfood.evaluation.explanations.gradients import integrated_gradients, saliency, smooth_grad, strength
from jaxfood.evaluation.explanations.layer_figures import draw_layers
from jaxfood.evaluation.explanations.lime import lime
from jaxfood.evaluation.explanations.occlusion import occlusion
from jaxfood.evaluation.explanations.scores import Variables, all_probabilities, class_logits, in_parts
from jaxfood.evaluation.explanations.sheets import Explanations, RowLabel, draw_sheets
from jaxfood.inference.probabilities import common_classes, load_for_run
from jaxfood.model.network import Network
from jaxfood.model.networks import to_float
from jaxfood.report.figures import Figure
from jaxfood.runs.directory import each_run, load_run

_WAYS = 5  # steps of the progress bar for a run: gradients and Grad-CAM, SmoothGrad, integrated, occlusion, LIME


@dataclass(frozen=True, eq=False)
class _Run:
    """A loaded run, and the pictures of the index in its size."""

    path: Path
    model: Network
    variables: Variables
    pictures: Pictures


def explain(
    runs: Sequence[Path],
    index: PictureIndex,
    rows: Sequence[int],
    which: str | int = "best",
    progress: bool = True,
    *,
    cache_dir: str | Path = "",
    seed: int = 0,
) -> list[Figure]:
    """Figures that show why trained runs answer as they do.

    Sheets of the pictures at `rows`, explained for the class that all runs together answer: the mean of their maps, in
    the first run's size. Then, of the first run: the filters of its first layer, what filters of a middle layer look
    for, and a middle and the last hidden layer as maps of the index's pictures. Computed in float32 on one device,
    whatever the run was trained in and on.

    Args:
        runs: work directories of runs of the same classes; one of folds stands for all its folds.
        index: pictures, labelled or not.
        rows: numbers of pictures in the index, in the order to show them in; none: no sheets.
        which: the checkpoint of each run: "best", "last" or a step.
        progress: whether to show bars.
        cache_dir: where decoded pictures are kept; "": where the run keeps them.
        seed: of noise, of what is hidden, of the ascent and of t-SNE.

    Raises:
        UserError: no such run or checkpoint, runs of different classes, no picture that can be read, or matplotlib or
            scikit-learn is missing.
    """
    runs = each_run(runs)
    classes = common_classes(runs)
    loaded = [_load(run, index, which, cache_dir, progress) for run in runs]
    with tqdm(total=_WAYS * len(runs) + 2, desc="explaining", leave=False, disable=not progress) as bar:
        sheets = _sheets(loaded, index, rows, classes, seed, bar)
        first, count = loaded[0], len(loaded)
        said = f"Of {first.path}, the first of {count} runs." if count > 1 else ""
        layers = draw_layers(first.model, first.variables, first.pictures, classes, said=said, seed=seed, bar=bar)
    return sheets + layers


def explain_pictures(
    model: Network,
    variables: Variables,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int = 0,
    bar: tqdm | None = None,
) -> Explanations:
    """All ways to explain answers, of images `[B, H, W, 3]` in [0, 1] and their classes `[B]`.

    Args:
        model: the network.
        variables: its parameters and running statistics.
        images: what was answered.
        labels: the class of each to explain.
        seed: of noise and of what is hidden.
        bar: told of each of the five steps.
    """
    images = np.asarray(images, np.float32)
    labels = np.asarray(labels, np.int32)

    def ask(way: Callable[..., Any], **arguments: Any) -> np.ndarray:
        return in_parts(partial(way, model, variables, **arguments), images, labels)

    def done() -> None:
        if bar is not None:
            bar.update()

    plain, cam = ask(saliency), ask(grad_cam)
    done()
    smooth = ask(smooth_grad, seed=seed)
    done()
    contributions = ask(integrated_gradients)
    difference = ask(class_logits) - in_parts(partial(class_logits, model, variables), np.zeros_like(images), labels)
    gap = np.abs(contributions.sum((1, 2, 3)) - difference) / np.maximum(np.abs(difference), 1e-6)
    done()
    hidden = occlusion(model, variables, images, labels)
    done()
    surrogate = lime(model, variables, images, labels, seed=seed)
    done()
    smooth, contributions = strength(smooth), strength(contributions)
    return Explanations(plain, smooth, contributions, cam, hidden, surrogate.maps, gap, surrogate.r2)


def _load(run: Path, index: PictureIndex, which: str | int, cache_dir: str | Path, progress: bool) -> _Run:
    model, variables, config = load_run(run, which)
    pictures = load_for_run(config, index, cache_dir, progress=progress)
    # In float32, as bfloat16's gradients are mostly rounding, and plain: for so few pictures the fused blocks are no
    # faster (60 against 64 ms for the gradients of 8 at 96 px) and take five times as long to compile.
    return _Run(run, model.clone(dtype=None, axis_name=None, fused=False), variables, pictures)


def _sheets(
    loaded: Sequence[_Run], index: PictureIndex, rows: Sequence[int], classes: Sequence[str], seed: int, bar: tqdm
) -> list[Figure]:
    position = {path: number for number, path in enumerate(loaded[0].pictures.paths)}
    readable = [row for row in rows if index.paths[row] in position]
    if not readable:
        bar.update(_WAYS * len(loaded))
        return []
    positions = np.array([position[index.paths[row]] for row in readable])
    images = [np.asarray(to_float(jnp.asarray(run.pictures.images[positions]))) for run in loaded]
    probabilities = np.mean([_answers(run, seen) for run, seen in zip(loaded, images, strict=True)], axis=0)
    answers = probabilities.argmax(1).astype(np.int32)
    found = [
        explain_pictures(run.model, run.variables, seen, answers, seed=seed, bar=bar)
        for run, seen in zip(loaded, images, strict=True)
    ]
    labels = [
        RowLabel(
            file=index.paths[row].name,
            answer=classes[answer],
            probability=float(probability[answer]),
            truth=classes[index.labels[row]] if 0 <= index.labels[row] < len(classes) else "",
        )
        for row, answer, probability in zip(readable, answers, probabilities, strict=True)
    ]
    said = []
    if len(loaded) > 1:
        said.append(f"The answer is that of {len(loaded)} runs together, and each map the mean of theirs.")
    if unreadable := [index.name(index.paths[row]) for row in rows if index.paths[row] not in position]:
        said.append(f"Left out, as they cannot be read: {first_few(unreadable)}.")
    return draw_sheets(images[0], labels, _mean(found), " ".join(said))


def _answers(run: _Run, images: np.ndarray) -> np.ndarray:
    """A run's probabilities `[B, num_classes]`."""

    def ask(part: np.ndarray, _: np.ndarray) -> jax.Array:
        return all_probabilities(run.model, run.variables, part)

    return in_parts(ask, images, np.zeros(len(images), np.int32))


def _mean(found: Sequence[Explanations]) -> Explanations:
    """The mean over runs, in the size of the first."""
    if len(found) == 1:
        return found[0]
    means = {}
    for field in fields(Explanations):
        values = [getattr(each, field.name) for each in found]
        shape = values[0].shape
        means[field.name] = np.mean([np.asarray(jax.image.resize(value, shape, "linear")) for value in values], axis=0)
    return Explanations(**means)

"""Distillation: trained runs answer the pictures that a run is trained on, and their mean answer is a target for it.

Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", https://arxiv.org/abs/1503.02531. The
teachers see the very same changed picture as the student (Beyer et al. 2022, "Knowledge distillation: a good teacher is
patient and consistent", https://arxiv.org/abs/2106.05237), each at its own size.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxfood import processes
from jaxfood.config.sections import Config
from jaxfood.devices import replicated
from jaxfood.errors import UserError
from jaxfood.files import to_path
from jaxfood.inference.probabilities import same_classes
from jaxfood.model.network import Network
from jaxfood.model.networks import init_variables, make_model, predict_logits, to_float
from jaxfood.places import exists, similar
from jaxfood.pytorch.layouts import flat_leaves
from jaxfood.runs.checkpoints import Checkpoints
from jaxfood.runs.directory import each_run, read_classes, read_config


@dataclass(frozen=True, eq=False)
class Teachers:
    """Runs that teach.

    Attributes:
        networks: of each, with the size of the pictures that it was trained on.
        variables: the best of each, on every device.
        digests: of the content of these.
        lines: what there is to say of them, a line each.
    """

    networks: tuple[tuple[Network, int], ...]
    variables: tuple[Any, ...]
    digests: tuple[str, ...]
    lines: tuple[str, ...]

    def answer(self, variables: Sequence[Any], images: jax.Array, *, temperature: float) -> jax.Array:
        """The mean of the teachers' probabilities `[B, num_classes]` of images `[B, H, W, 3]`, by running statistics.

        `variables` are the teachers' own, given anew so that a compiled step takes them as arguments: as constants
        they would be a part of its program.
        """
        answers = []
        for (model, size), own in zip(self.networks, variables, strict=True):
            logits = predict_logits(model, own, _resized(to_float(images), size))
            answers.append(jax.nn.softmax(logits / temperature))
        return jax.lax.stop_gradient(sum(answers[1:], start=answers[0]) / len(answers))


def find_teachers(config: Config, workdir: Path | None = None) -> list[Path]:
    """The runs of `train.teachers`, a directory of folds standing for all its folds; before any picture is read.

    Raises:
        UserError: one is not there, is no run, has no checkpoint, or is `workdir`, the run itself.
    """
    named = [to_path(path) for path in config.train.teachers.split(",") if path]
    for path in named:
        if not exists(path):
            raise UserError(f"train.teachers: {path} does not exist{similar(path)}; name the directories of runs")
    runs = each_run(named)
    for path in runs:
        if workdir is not None and path == workdir.absolute():
            raise UserError(f"train.teachers: {path} is this run itself: name others, or take another --workdir")
        read_config(path)
        with Checkpoints(path) as checkpoints:
            checkpoints.find("best")
    return runs


def load_teachers(config: Config, classes: Sequence[str], mesh: Mesh, workdir: Path | None = None) -> Teachers | None:
    """The teachers of a run, None where it has none. Several processes must all call it.

    Args:
        config: the run's.
        classes: its own, in label order.
        mesh: where their weights are read to.
        workdir: its own directory.

    Raises:
        UserError: as `find_teachers`, or they have other classes.
    """
    if not config.train.teachers:
        return None
    with processes.together():
        runs = find_teachers(config, workdir)
        try:
            same_classes({"this run": classes, **{str(path): read_classes(path) for path in runs}})
        except UserError as error:
            raise UserError(f"train.teachers: {error}") from None
        loaded = [_load(path, mesh) for path in runs]
    return Teachers(
        tuple((make_model(theirs.model), theirs.data.image_size) for theirs, _, _ in loaded),
        tuple(variables for _, variables, _ in loaded),
        tuple(_digest(variables) for _, variables, _ in loaded),
        tuple(_describe(path, step, theirs, config) for path, (theirs, _, step) in zip(runs, loaded, strict=True)),
    )


def _load(path: Path, mesh: Mesh) -> tuple[Config, dict[str, Any], int]:
    config, everywhere = read_config(path), replicated(mesh)
    shapes = jax.eval_shape(lambda: init_variables(config))
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), shapes)
    with Checkpoints(path) as checkpoints:
        step = checkpoints.find("best")
        return config, checkpoints.restore_variables(step, target), step


def _digest(variables: Any) -> str:
    """BLAKE2b of 128 bits, of the names and values of all variables."""
    digest = hashlib.blake2b(digest_size=16)
    for name, leaf in sorted(flat_leaves(variables).items()):
        digest.update(name.encode() + b"\0" + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _describe(path: Path, step: int, theirs: Config, config: Config) -> str:
    size = theirs.data.image_size
    resized = "" if size == config.data.image_size else f", which sees each picture resized to its {size} px"
    return f"taught by {path} ({theirs.model.name}, best weights, step {step}){resized}"


def _resized(images: jax.Array, size: int) -> jax.Array:
    if images.shape[1] == size:
        return images
    return jax.image.resize(images, (len(images), size, size, 3), "linear")

"""Class probabilities of pictures, by one trained run or several."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from tqdm.auto import tqdm

from jaxfood.config.sections import Config, DeviceConfig
from jaxfood.data.batches import make_batches
from jaxfood.data.cache import load_pictures
from jaxfood.data.cache_folder import cache_dir_of_run
from jaxfood.data.cached_pictures import CachedPictures
from jaxfood.data.index import PictureIndex, index_pictures
from jaxfood.data.pictures import Pictures, StoredPictures
from jaxfood.devices import compile_step, make_mesh, on_every_device, takes_rows_by_device
from jaxfood.errors import UserError, first_few
from jaxfood.files import to_path
from jaxfood.inference.views import change, knows_views, picture_numbers, weigh
from jaxfood.model.network import Network
from jaxfood.model.networks import predict_logits
from jaxfood.runs.directory import each_run, load_run, read_classes
from jaxfood.runs.pictures import are_numbers


@dataclass(frozen=True, eq=False)
class Answers:
    """What runs answer for N pictures.

    Attributes:
        probabilities: float32 [N, num_classes], the mean over the runs; NaN for what cannot be read.
        unreadable: the pictures that cannot be decoded, and why.
        classes: the names of the classes in label order, or their numbers where the runs have no names.
        plain: the runs that answered by the plain view alone though others were asked for, as they were trained on it
            alone.
        by_run: float32 [runs, N, num_classes], what each answers on its own; NaN as above.
    """

    probabilities: np.ndarray
    unreadable: Mapping[Path, str]
    classes: tuple[str, ...]
    plain: tuple[str, ...]
    by_run: np.ndarray


def predict_probabilities(
    runs: Sequence[str | Path],
    images: str | Path | PictureIndex,
    which: str | int = "best",
    *,
    tta: int = 0,
    cache_dir: str | Path = "",
    progress: bool = True,
    device: DeviceConfig = DeviceConfig(),
) -> np.ndarray:
    """Class probabilities `[N, num_classes]` of pictures, the mean over the runs.

    Each run sees the pictures in its own size, and as many at a time as its training had in memory. With `tta`
    (test-time augmentation) it also sees as many views of each picture, changed at random by the run's own `augment`
    settings, and answers by half the plain view's probabilities and half the mean of the other views'. It is
    probabilities that are averaged, over views and over runs, not logits. A run that was trained without augmentation
    answers by the plain view.

    Args:
        runs: work directories of runs of the same classes; one of folds stands for all its folds.
        images: N pictures: a folder, in the order of the file names, a picture, a list, or an index of them.
        which: the checkpoint of each run: "best", "last" or a step.
        tta: how many views beside the plain one. They are a function of the run's seed, their number and the picture's
            content: not of the other pictures, the batch or the devices.
        cache_dir: where decoded pictures are kept; empty: where the run keeps them, if that is on this machine.
        progress: whether to show bars.
        device: how many devices of this machine answer, whatever the runs were trained on.

    Raises:
        UserError: no such run or checkpoint, runs of different classes, pictures that cannot be read; with `tta` also
            where no run was trained with augmentation.
    """
    answers = answer_pictures(runs, images, which, tta=tta, cache_dir=cache_dir, progress=progress, device=device)
    if answers.unreadable:
        named = (f"{path}: {reason}" for path, reason in answers.unreadable.items())
        raise UserError(f"{len(answers.unreadable)} pictures cannot be read ({first_few(named)}): mend or remove them")
    return answers.probabilities


def answer_pictures(
    runs: Sequence[str | Path],
    images: str | Path | PictureIndex,
    which: str | int = "best",
    *,
    tta: int = 0,
    cache_dir: str | Path = "",
    progress: bool = True,
    device: DeviceConfig = DeviceConfig(),
) -> Answers:
    """As `predict_probabilities`, but what cannot be read is told instead of refused.

    Raises:
        UserError: no such run or checkpoint, runs of different classes, no picture that can be read; with `tta` also
            where no run was trained with augmentation.
    """
    if tta < 0:
        raise UserError(f"tta = {tta}: it takes how many views beside the plain one, 0 or more")
    runs = each_run(runs)
    index = images if isinstance(images, PictureIndex) else index_pictures(images, labelled=False)
    loaded = [load_run(run, which) for run in runs]
    classes = common_classes(runs)
    plain = _plain_runs(runs, [config for _, _, config in loaded]) if tta else ()
    mesh = make_mesh(device)
    row_of = {path: row for row, path in enumerate(index.paths)}
    total = np.zeros((len(index), len(classes)), np.float32)
    by_run = np.full((len(loaded), *total.shape), np.nan, np.float32)
    unreadable: dict[Path, str] = {}
    for own, (model, variables, config) in zip(by_run, loaded, strict=True):
        pictures = load_for_run(config, index, cache_dir, progress=progress)
        rows = [row_of[path] for path in pictures.paths]
        views = tta if knows_views(config) else 0
        own[rows] = _probabilities(model, variables, config, pictures, mesh, progress, views)
        total[rows] += own[rows]
        unreadable |= pictures.skipped
    total[[row_of[path] for path in unreadable]] = np.nan
    return Answers(total / len(loaded), unreadable, classes, plain, by_run)


def load_for_run(config: Config, index: PictureIndex, cache_dir: str | Path = "", *, progress: bool = True) -> Pictures:
    """The pictures of an index that can be read, squared and turned as a run of this configuration sees them.

    Args:
        config: the run's.
        index: which pictures.
        cache_dir: where decoded pictures are kept; empty: where the run keeps them, if that is on this machine.
        progress: whether to show a bar.
    """
    return load_pictures(
        index,
        config.data.image_size,
        cache_dir=cache_dir or cache_dir_of_run(config.data.cache_dir),
        skip_corrupt=True,
        exif_orientation=config.data.exif_orientation,
        resize=config.data.resize,
        fast=config.data.decodes_fast,
        progress=progress,
    )


def answer_of_run(
    run: Path, pictures: Pictures | StoredPictures, which: str | int = "best", *, progress: bool, device: DeviceConfig
) -> np.ndarray:
    """One run's class probabilities `[N, num_classes]` of pictures of its size, as `answer_pictures` has them."""
    model, variables, config = load_run(run, which)
    return _probabilities(model, variables, config, pictures, make_mesh(device), progress)


def common_classes(runs: Sequence[str | Path]) -> tuple[str, ...]:
    """The classes of runs that are to answer together.

    A run of PyTorch weights knows numbers alone: these fit the names of another run.

    Raises:
        UserError: a run has other classes than another.
    """
    return same_classes({str(run): read_classes(to_path(run)) for run in runs})


def same_classes(named: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """`common_classes` of runs by their names."""
    first = next((run for run, classes in named.items() if not are_numbers(classes)), next(iter(named)))
    for run, classes in named.items():
        if len(classes) != len(named[first]):
            raise UserError(
                f"the runs differ in their number of classes: {first} has {len(named[first])}, {run} has "
                f"{len(classes)}; give runs of the same classes"
            )
        pairs = enumerate(zip(named[first], classes, strict=True))
        differing = [f"{label} is {a} and {b}" for label, (a, b) in pairs if a != b]
        if differing and not are_numbers(classes):
            raise UserError(
                f"{first} and {run} differ in their classes ({first_few(differing)}): give runs of the same classes"
            )
    return tuple(named[first])


def _plain_runs(runs: Sequence[str | Path], configs: Sequence[Config]) -> tuple[str, ...]:
    """The runs that know the plain view alone.

    Raises:
        UserError: all do.
    """
    plain = tuple(str(run) for run, config in zip(runs, configs, strict=True) if not knows_views(config))
    if len(plain) == len(runs):
        raise UserError(
            f"--tta: {first_few(plain)} {'was' if len(runs) == 1 else 'were'} trained without augmentation, and "
            "changed views mislead a network that never saw any: leave --tta out, or take a run that was trained with "
            "an augment setting"
        )
    return plain


def _probabilities(
    model: Network,
    variables: dict[str, Any],
    config: Config,
    pictures: Pictures | StoredPictures,
    mesh: Mesh,
    progress: bool,
    views: int = 0,
) -> np.ndarray:
    source = pictures
    if isinstance(pictures, Pictures) and not config.data.resident:
        source = CachedPictures([pictures])
    feed = make_batches(source, mesh, by_device=takes_rows_by_device(config))
    order, batch_size = np.arange(len(pictures)), config.train.part_size
    variables, numbers = on_every_device((variables, picture_numbers(pictures.digests)), mesh)
    view_numbers = [on_every_device(np.int32(view), mesh) for view in range(views)]
    first = next(feed.batches(order, batch_size))
    predict = compile_step(partial(_all_logits, model), config, mesh, (variables, first))
    if views:
        # A step a view, not a loop over views inside one: there the CPU's convolutions take one thread.
        look = partial(_all_view_logits, model, config)
        predict_view = compile_step(look, config, mesh, (variables, numbers, view_numbers[0], first))
    total = math.ceil(len(order) / batch_size)
    plain, others = list[np.ndarray](), list[np.ndarray]()
    batches = feed.batches(order, batch_size)
    with tqdm(batches, total=total, desc="predicting", unit="batch", leave=False, disable=not progress) as bar:
        for batch in bar:
            # Every batch may be padded, where devices do not divide it.
            is_picture = np.ravel(batch["mask"]) > 0
            plain.append(np.asarray(predict(variables, batch))[is_picture])
            looks = [np.asarray(predict_view(variables, numbers, view, batch))[is_picture] for view in view_numbers]
            if views:
                others.append(np.mean(jax.nn.softmax(np.stack(looks)), axis=0))
    probabilities = np.asarray(jax.nn.softmax(np.concatenate(plain)))
    return weigh(probabilities, np.concatenate(others)) if views else probabilities


def _all_logits(model: Network, variables: Any, batch: Any, axis_name: str | None = None) -> jax.Array:
    """The whole batch's logits `[B, num_classes]`, on every device."""
    logits = predict_logits(model, variables, batch["image"])
    return logits if axis_name is None else lax.all_gather(logits, axis_name, tiled=True)


def _all_view_logits(
    model: Network,
    config: Config,
    variables: Any,
    numbers: jax.Array,
    view: jax.Array,
    batch: Any,
    axis_name: str | None = None,
) -> jax.Array:
    """`_all_logits` of a changed view of each picture; `numbers` are those of all pictures, `[N]`."""
    changed = change(config, batch["image"], jnp.take(numbers, batch["position"], mode="clip"), view)
    return _all_logits(model, variables, {**batch, "image": changed}, axis_name)

"""Two seeds of one network: the wall between them on the straight line, the valley along a trained curve."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxfood.config import Config
from jaxfood.data.batches import make_batches, steps_per_epoch
from jaxfood.data.pictures import Pictures
from jaxfood.devices import make_mesh
from jaxfood.landscape import straight
from jaxfood.lessons.claims import Claim
from jaxfood.lessons.trainings import Data, load_data, train_epochs
from jaxfood.report.page import COLOURS, LINES, Page
from jaxfood.run_landscape.connection import PLACES, PathMeasured, Paths

GARIPOV = "Garipov et al. 2018, arXiv 1802.10026"
PAIRS, FULL_PAIRS = ((1, 2),), ((1, 2), (3, 4), (5, 6))
PICTURES = 660  # to train on, at most: all of the drawn ones
# Until the ends have a loss near 0, as what has not arrived is in no valley; the curve has more to learn than they.
EPOCHS, CURVE_EPOCHS, CURVE_RATE = 30, 60, 0.05
NETWORK = ("model.name=resnet", "model.width=16", "model.blocks=1,1", "data.image_size=32", "train.batch_size=32")

WALL = 3.0  # "several times"
# The authors' VGG-16 on CIFAR-10: a training loss of 0.24 at both ends, and nowhere more on the curve; a test error of
# 6.79 and 6.94 % at the ends, and on the curve at most 7.75 %.
REST_OF_WALL, REST_TOLERANCE = 0.0, 0.02
EXCESS, EXCESS_TOLERANCE = 0.0775 - 0.0694, 0.02  # 220 pictures tell an error of 7 % to 1.7 points


def measure(*, full: bool = False, images: Path | None = None) -> dict[str, Any]:
    """Train pairs of seeds, bend a curve between each, and measure both paths as `jaxfood.landscape --to` does.

    BatchNorm's statistics are taken anew at every place, by training pictures.

    Returns:
        `image_size`, `pictures`, `classes`, `places`; `pairs`: the `seeds` of each, and for `line` and `curve` the
        training `losses`, the validation `errors` and the `barrier` of the losses; `claims`.
    """
    data = load_data(NETWORK, images, PICTURES)
    config, train = data.config, data.train
    updates = CURVE_EPOCHS * steps_per_epoch(len(train), config.train.batch_size)
    settings = dataclasses.replace(config.landscape, curve_updates=updates, curve_rate=CURVE_RATE)
    data = data._replace(config=dataclasses.replace(config, landscape=settings))
    pairs = [_connect(data, pair) for pair in (FULL_PAIRS if full else PAIRS)]
    return {
        "image_size": config.data.image_size,
        "pictures": {"train": len(train), "valid": len(data.valid)},
        "classes": config.model.num_classes,
        "places": PLACES,
        "pairs": pairs,
        "claims": [claim.as_json() for claim in _claims(pairs)],
    }


def _claims(pairs: list[dict[str, Any]]) -> Iterator[Claim]:
    walls = tuple(max(pair["line"]["losses"]) / _ends(pair["line"]["losses"]) for pair in pairs)
    rests = tuple(pair["curve"]["barrier"] / pair["line"]["barrier"] for pair in pairs)
    excesses = tuple(max(pair["curve"]["errors"]) - _ends(pair["curve"]["errors"]) for pair in pairs)
    yield Claim("the line's highest training loss by the ends'", GARIPOV, WALL, walls, 0.0, "at least")
    yield Claim("what the curve leaves of the line's wall", GARIPOV, REST_OF_WALL, rests, REST_TOLERANCE, "at most")
    name = "the curve's highest validation error less the ends'"
    yield Claim(name, GARIPOV, EXCESS, excesses, EXCESS_TOLERANCE, "at most")


def _ends(values: Sequence[float]) -> float:
    """The higher of both ends'."""
    return max(values[0], values[-1])


def _connect(data: Data, pair: tuple[int, int]) -> dict[str, Any]:
    start, end = (_train(data.config, data.train, seed) for seed in pair)
    on_train, on_valid = (Paths(data.config, data.train, measured) for measured in (data.train, data.valid))
    line = straight(start, end)
    paths = {"line": line, "curve": on_train.fit(line)}
    measured = {name: _numbers(on_train.measure(path), on_valid.measure(path)) for name, path in paths.items()}
    return {"seeds": pair, **measured}


def _train(config: Config, pictures: Pictures, seed: int) -> Any:
    """The parameters after training from a seed's weights in its order."""
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
    *_, (state, _) = train_epochs(config, make_batches(pictures, make_mesh(config.device)), EPOCHS)
    return jax.device_get(state.params)


def _numbers(train: PathMeasured, valid: PathMeasured) -> dict[str, Any]:
    return {"losses": train.losses.tolist(), "errors": (1 - valid.accuracies).tolist(), "barrier": train.barrier}


def write(numbers: dict[str, Any], page: Page) -> None:
    """Loss and error along both paths."""
    first, pictures = numbers["pairs"][0], numbers["pictures"]
    line, curve = first["line"], first["curve"]
    page.text(f"""Two trainings of one network that begin with other random weights end in other places. Are these two
        separate valleys? A small residual network learns {pictures["train"]} pictures at {numbers["image_size"]} px
        from two seeds, until their loss is near 0 ({EPOCHS} epochs). Between the two ends run the straight line, and a
        quadratic Bezier curve whose middle point is trained too ({CURVE_EPOCHS} epochs), so that the loss is low along
        all of it (Garipov et al. 2018). BatchNorm's statistics are taken anew at every place; the loss is that of the
        training pictures, the error that of {pictures["valid"]} others.""")
    further = ", thin for each further pair" if len(numbers["pairs"]) > 1 else ""
    with page.figure("paths", f"Loss and error along the line and along the curve{further}", (10, 4)) as figure:
        _draw(figure.subplots(1, 2), numbers)
    page.table(
        ("seeds", "path", "training loss at the ends", "highest", "validation error at the ends", "highest"),
        (
            (
                " and ".join(map(str, pair["seeds"])),
                name,
                *(value for what in ("losses", "errors") for value in (_ends(pair[name][what]), max(pair[name][what]))),
            )
            for pair in numbers["pairs"]
            for name in ("line", "curve")
        ),
    )
    page.text(f"""**Look at** the middle. On the line the loss rises from {_ends(line["losses"]):.2g} to
        {max(line["losses"]):.2g}, where guessing has {np.log(numbers["classes"]):.2g}: a network whose weights are the
        mean of two good ones' knows little. On the curve it is {max(curve["losses"]):.2g} at most, and the error
        {100 * max(curve["errors"]):.1f} % where the worse end has {100 * _ends(curve["errors"]):.1f} %. So the two ends
        are no separate minima but places in one valley, which is just not straight.""")
    page.text("""What it does not say: that any two points are joined so, or that the middle of the curve is a third
        training for free; it has been trained. `python -m jaxfood.landscape RUN --to OTHER` draws the same between two
        runs of your own; give the curve time there (`--landscape.curve_updates`), for it has as much to learn as a
        network.""")


def _draw(axes: Any, numbers: dict[str, Any]) -> None:
    pairs = numbers["pairs"]
    for pair in pairs:
        for name, colour, style in zip(("line", "curve"), COLOURS, LINES, strict=False):
            drawn: dict[str, Any] = {"color": colour, "ls": style, "lw": 2 if pair is pairs[0] else 0.8}
            label = name if pair is pairs[0] else None
            axes[0].plot(numbers["places"], pair[name]["losses"], label=label, **drawn)
            axes[1].plot(numbers["places"], 100 * np.array(pair[name]["errors"]), **drawn)
    axes[0].set(xlabel="share of the way", ylabel="training loss", yscale="log")
    axes[1].set(xlabel="share of the way", ylabel="validation error, %", ylim=(0, None))
    axes[0].legend()

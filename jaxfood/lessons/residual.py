"""The 2022 homework's residual sample network, whose first steps go wild, and the same skips scaled well."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxfood.config import load_config
from jaxfood.data.pictures import Pictures
from jaxfood.data.splits import load_splits
from jaxfood.lessons.claims import Claim
from jaxfood.model.layers import BatchNorm, Conv, torch_uniform
from jaxfood.optim.optimizers import make_optimizer
from jaxfood.report.page import COLOURS, LINES, Page

SEEDS, FULL_SEEDS = (1,), (1, 2, 3)
SIDE = 128  # at 32 px the same network leaps to a loss of 3 only: it has a sixteenth of the features
STEPS, BATCH, FULL_BATCH = 10, 8, 32
CHANNELS, STRIDES, HIDDEN = (64, 64, 128, 128, 256, 256), (1, 1, 2, 1, 2, 1), 256
SOURCE = "public ablation on Food-11 (loss 79, gradient norms 350 - 650)"
RECIPE = "the same recipe, well scaled"


class SampleNetwork(nn.Module):
    """Six 3x3 convolutions with BatchNorm and ReLU, no pooling, two fully connected layers: the homework's Q2.

    Attributes:
        num_classes: number of classes.
        skips: add what every second convolution is given to what it makes, before its ReLU; false: the homework's
            plain twin.
        mean_head: the first fully connected layer sees each channel's mean over the picture; false: all values, as in
            the homework, 262,144 of a picture of 128 px.
    """

    num_classes: int
    skips: bool = True
    mean_head: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits `[B, num_classes]` of images `[B, H, W, 3]` in [0, 1], BatchNorm by the batch, as in training."""
        x = images
        for number, (features, stride) in enumerate(zip(CHANNELS, STRIDES, strict=True), start=1):
            y = Conv(x.shape[-1], features, size=3, stride=stride, padding=1, fused=False, name=f"conv{number}")(x)
            y = BatchNorm(features, name=f"norm{number}")(y, train=True)
            x = nn.relu(x + y if self.skips and number % 2 == 0 else y)
        x = x.mean((1, 2)) if self.mean_head else x.reshape(len(x), -1)
        for name, features in (("fc1", HIDDEN), ("fc2", self.num_classes)):
            init = torch_uniform(x.shape[-1])
            x = nn.Dense(features, kernel_init=init, bias_init=init, name=name)(x)
            x = nn.relu(x) if name == "fc1" else x
        return x


class Plan(NamedTuple):
    """What a network is made of: see `SampleNetwork`."""

    skips: bool
    mean_head: bool


PLANS = {
    "homework's": Plan(skips=True, mean_head=False),
    "without its skips": Plan(skips=False, mean_head=False),
    "skips, mean over the picture": Plan(skips=True, mean_head=True),
}
BAD, GOOD = "homework's", "skips, mean over the picture"


def measure(*, full: bool = False, images: Path | None = None) -> dict[str, Any]:
    """Take each network's first ten steps by the notes' recipe, on the same batches.

    Returns:
        `image_size`, `batch_size`, `seeds`; `networks`: for each its `features` (numbers that the first fully connected
        layer sees), `parameters`, and for each seed the `losses` and `gradient_norms` (before clipping) of the steps;
        `claims`.
    """
    batch_size, seeds = (FULL_BATCH, FULL_SEEDS) if full else (BATCH, SEEDS)
    pictures, classes = _load(SIDE, images)
    networks: dict[str, Any] = {}
    for name, plan in PLANS.items():
        model = SampleNetwork(classes, *plan)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))["params"]
        networks[name] = {
            "features": shapes["fc1"]["kernel"].shape[0],
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(shapes)),
            "seeds": [_first_steps(model, pictures, batch_size, seed) for seed in seeds],
        }
    numbers = {"image_size": SIDE, "batch_size": batch_size, "seeds": seeds, "networks": networks}
    return {**numbers, "claims": [claim.as_json() for claim in _claims(networks)]}


def _claims(networks: dict[str, Any]) -> Iterator[Claim]:
    """Orders of magnitude: of the source's for the homework's network, far below them for the other."""
    bounds: dict[str, tuple[str, Literal["at least", "at most"], float, float]] = {
        BAD: (SOURCE, "at least", 10.0, 100.0),
        GOOD: (RECIPE, "at most", 5.0, 20.0),
    }
    for name, (source, relation, *expected) in bounds.items():
        for what, bound in zip(("losses", "gradient_norms"), expected, strict=True):
            measured = tuple(max(seed[what]) for seed in networks[name]["seeds"])
            words = "highest loss" if what == "losses" else "highest gradient norm"
            yield Claim(f"{name}: {words} of {STEPS} steps", source, bound, measured, 0.0, relation)


def _load(side: int, images: Path | None) -> tuple[Pictures, int]:
    """The training pictures, and how many classes they are of."""
    source = () if images is None else ("data.source=folder", f"data.root={images}")
    config = load_config("demo", (*source, f"data.image_size={side}"))
    splits = load_splits(config.data, config.model.num_classes, seed=0, progress=False)
    return splits.train.subset(slice(None)), len(splits.classes)


def _first_steps(model: SampleNetwork, pictures: Pictures, batch_size: int, seed: int) -> dict[str, Any]:
    tx = make_optimizer(load_config(None, ()), STEPS)
    side = pictures.images.shape[1]
    variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, side, side, 3)))
    params, batch_stats = variables["params"], variables["batch_stats"]
    opt_state = tx.init(params)

    def loss_of(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        # The running statistics that come out are dropped: these few steps only ever see the batch's.
        logits, _ = model.apply({"params": params, "batch_stats": batch_stats}, images, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Any, opt_state: Any, images: jax.Array, labels: jax.Array) -> Any:
        loss, gradient = jax.value_and_grad(loss_of)(params, images / 255, labels)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss, optax.tree.norm(gradient)

    losses, norms = list[float](), list[float]()
    rng = np.random.default_rng(seed)
    for _ in range(STEPS):
        chosen = np.sort(rng.choice(len(pictures), min(batch_size, len(pictures)), replace=False))
        batch = jnp.asarray(pictures.images[chosen], jnp.float32), jnp.asarray(pictures.labels[chosen])
        params, opt_state, loss, norm = update(params, opt_state, *batch)
        losses.append(float(loss))
        norms.append(float(norm))
    return {"seed": seed, "losses": losses, "gradient_norms": norms}


def write(numbers: dict[str, Any], page: Page) -> None:
    """Losses and gradient norms of the first steps."""
    networks, side = numbers["networks"], numbers["image_size"]
    bad, good = networks[BAD], networks[GOOD]
    page.text(f"""The homework of 2022 asks for skips in a sample network of six convolutions, and whoever adds them
        finds it worse than without (in a public ablation 0.599 against 0.646 on Food-11). Are skips to
        blame? The network never pools: its first fully connected layer sees {bad["features"]:,} numbers of a picture of
        {side} px. Here it takes its first {STEPS} steps by the notes' recipe (Adam, rate 3e-4) in batches of
        {numbers["batch_size"]}, beside its twin without skips, and beside one with the same skips whose first fully
        connected layer sees the mean of each channel: {good["features"]} numbers.""")
    with page.figure("steps", f"Loss and gradient norm at each of the first {STEPS} steps", (10, 4)) as figure:
        axes = figure.subplots(1, 2)
        for (name, network), colour, line in zip(networks.items(), COLOURS, LINES, strict=False):
            for seed in network["seeds"]:
                label = name if seed is network["seeds"][0] else None
                for axis, what in zip(axes, ("losses", "gradient_norms"), strict=True):
                    axis.semilogy(range(1, STEPS + 1), seed[what], color=colour, ls=line, marker="o", ms=3, label=label)
        axes[0].set(xlabel="step", ylabel="loss")
        axes[1].set(xlabel="step", ylabel="gradient norm, before clipping")
        axes[0].legend()
    page.table(
        ("network", "seen by the first fully connected layer", "parameters", "highest loss", "highest gradient norm"),
        (
            (
                name,
                f"{network['features']:,}",
                f"{network['parameters']:,}",
                max(max(seed["losses"]) for seed in network["seeds"]),
                max(max(seed["gradient_norms"]) for seed in network["seeds"]),
            )
            for name, network in networks.items()
        ),
    )
    page.text(f"""Adam's first step moves every weight by the rate, whatever the gradient. The inputs of a layer are not
        negative after a ReLU, so that all these moves add up: an output moves by up to 3e-4 times {bad["features"]:,}
        times the mean input. Skips make the inputs larger, as they add, and so the leap; they do not cause it. The mean
        over the picture takes it away. **Look at** the second step: it is where the first layer's leap arrives. A
        network whose size grows needs a smaller rate, or a mean where it would flatten: `model.name = "resnet"` has
        one, and its blocks begin by passing on what they are given.""")

"""What each augmentation costs on this machine, a picture, and beside an update of two networks.

    python scripts/benchmarks/augment.py [--batch_size 64] [--image_size 64,96,128] [--turns 7]

The networks are `resnet`, the lightest, and the notes' `classifier`; an update is forward, backward, clipping and Adam
in float32, without augmentation. Each augmentation is compiled alone, takes bytes and gives what the network reads;
mixing takes floats. All take turns, and the median is printed, by the clock and of a core: the latter hardly changes
when others use the machine too. The shares are of the update by the clock, for augmentation runs on one core.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Parser, Seconds, Work, in_turns, print_setting, print_table, random_pictures

from jaxfood import TrainState, load_config, train_step
from jaxfood.config.augment import AugmentConfig
from jaxfood.data.augment import augment, changes, mix, mixes
from jaxfood.model.networks import init_variables

JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
USUAL = {"flip": True, "resized_crop": 0.35, "erase": 0.25}
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "flip": {"flip": True},
    "crop": {"crop": 8},
    "resized_crop": {"resized_crop": 0.35},
    "affine (rotation, translate, zoom, shear)": {"rotation": 15, "translate": 0.1, "zoom": 0.1, "shear": 5},
    "jitter (brightness, contrast, saturation, hue)": JITTER,
    "grayscale": {"grayscale": 0.2},
    "trivial": {"trivial": True},
    "erase": {"erase": 0.25},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
    "**together: resized_crop, flip, jitter, erase**": {**USUAL, **JITTER},
    "**together: resized_crop, flip, trivial, erase**": {**USUAL, "trivial": True},
}
NETWORKS = ("resnet", "classifier")


def main() -> None:
    parser = Parser(__doc__)
    parser.add_numbers(batch_size=64, turns=7)
    parser.add_argument("--image_size", type=sizes, default=(64, 96, 128), help="divisible by 32, with commas")
    arguments = parser.parse_args()
    print_setting(f"batch {arguments.batch_size}, median of {arguments.turns}")
    for size in arguments.image_size:
        pictures = random_pictures(arguments.batch_size, size)
        works = {name: update(name, pictures) for name in NETWORKS}
        works |= {name: augmentation(AugmentConfig(**given), pictures) for name, given in AUGMENTATIONS.items()}
        medians = in_turns(works, arguments.turns, warm_up=2)
        a_picture = {name: per_picture(seconds, arguments.batch_size) for name, seconds in medians.items()}
        updates = {name: a_picture.pop(name) for name in NETWORKS}
        print(f"\n{size} px, an update: {', '.join(f'{name} {describe(each)}' for name, each in updates.items())}\n")
        header = ("augmentation", "us by the clock", "us of a core", *(f"of {name}'s update" for name in NETWORKS))
        print_table(header, [row(name, each, updates) for name, each in a_picture.items()])


def sizes(text: str) -> tuple[int, ...]:
    return tuple(32 * max(1, int(number) // 32) for number in text.split(","))


def update(network: str, pictures: dict[str, np.ndarray]) -> Work:
    """An update without augmentation; the pictures lie on the device as bytes, as in a training."""
    size = pictures["image"].shape[1]
    config = load_config(overrides=[f"model.name={network}", "model.num_classes=11", f"data.image_size={size}"])
    states = [TrainState.create(config, init_variables(config), total_steps=1000)]
    batch = jax.device_put(pictures)

    def work() -> None:
        state, metrics = train_step(states.pop(), batch)
        states.append(state)
        jax.block_until_ready((state, metrics))

    return work


def augmentation(config: AugmentConfig, pictures: dict[str, np.ndarray]) -> Work:
    positions, step = jnp.arange(len(pictures["label"])), iter(range(2**31))
    batch = jax.device_put(pictures)
    made: Callable[..., Any]
    if mixes(config):
        batch["image"] = batch["image"].astype(jnp.float32) / 255
        made = jax.jit(lambda batch, key: mix(config, batch, key, None)["image"])
    else:
        assert changes(config)
        made = jax.jit(lambda batch, key: augment(config, batch["image"], positions, key))
    return lambda: jax.block_until_ready(made(batch, jax.random.key(next(step))))


def per_picture(seconds: Seconds, count: int) -> Seconds:
    return Seconds(seconds.clock / count * 1e6, seconds.core / count * 1e6)


def describe(each: Seconds) -> str:
    return f"{each.clock:.0f} us a picture by the clock, {each.core:.0f} of a core"


def row(name: str, each: Seconds, updates: dict[str, Seconds]) -> list[str]:
    shares = (f"{100 * each.clock / whole.clock:.1f} %" for whole in updates.values())
    return [name, f"{each.clock:.0f}", f"{each.core:.0f}", *shares]


if __name__ == "__main__":
    main()

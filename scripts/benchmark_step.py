"""Images per second of jaxfood and of PyTorch as in the notes, on this machine.

    python scripts/benchmark_step.py [--batch_size 64] [--image_size 128] [--steps 7] [--compile]

Training is the whole update: forward, backward, clipping, Adam (3e-4, L2 1e-5), float32. All run in one process and
take turns step by step, so that a machine whose speed drifts slows all; the median of the steps is printed, after
a warm-up that compiles. Pictures are random: the speed does not depend on them.

With `--compile` PyTorch also runs in the memory format channels_last, eagerly and by `torch.compile`, which needs a C++
compiler and about a minute before the first step.
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from measuring import machine, versions

from jaxfood.config import load_config
from jaxfood.model.networks import init_variables, predict_logits
from jaxfood.training.state import TrainState
from jaxfood.training.step import train_step as jaxfood_train_step

try:
    import torch
    from torch_reference import Classifier, to_torch_images, train_step
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is missing, and the comparison is with PyTorch: pip install torch")

Work = Callable[[], object]  # ends when the device has done it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--image_size", type=int, default=128, help="divisible by 32")
    parser.add_argument("--steps", type=int, default=7, help="measured steps of each")
    parser.add_argument("--compile", action="store_true", help="compare with channels_last and torch.compile too")
    arguments = parser.parse_args()
    if min(arguments.batch_size, arguments.steps) < 1 or arguments.image_size < 32 or arguments.image_size % 32:
        parser.error("give positive numbers, and an --image_size divisible by 32")

    rng = np.random.default_rng(0)
    size = (arguments.batch_size, arguments.image_size, arguments.image_size, 3)
    images, labels = rng.integers(0, 256, size, np.uint8), rng.integers(0, 11, arguments.batch_size, np.int32)
    rivals = ("eager", "channels_last", "compiled channels_last") if arguments.compile else ("eager",)
    works = jaxfood_works(images, labels)
    for rival in rivals:
        works |= torch_works(images, labels, rival)
    rates = {name: arguments.batch_size / seconds for name, seconds in measure(works, arguments.steps).items()}

    print(f"{machine()}\n{versions()}")
    print(f"batch {arguments.batch_size}, {arguments.image_size} px, float32, median of {arguments.steps} steps\n")
    print("| images/s | jaxfood |" + "".join(f" PyTorch {rival} | ratio |" for rival in rivals))
    print("|---|---|" + "---|---|" * len(rivals))
    for kind in ("training", "evaluation"):
        ours = rates[f"jaxfood {kind}"]
        theirs = [rates[f"{rival} {kind}"] for rival in rivals]
        print(f"| {kind} | {ours:.1f} |" + "".join(f" {rate:.1f} | {ours / rate:.2f} |" for rate in theirs))


def jaxfood_works(images: np.ndarray, labels: np.ndarray) -> dict[str, Work]:
    """One update and one evaluation; the pictures lie on the device as bytes, as in jaxfood's training."""
    config = load_config(overrides=(f"data.image_size={images.shape[1]}",))
    variables = init_variables(config)
    state = TrainState.create(config, variables, total_steps=1000)
    batch = jax.device_put({"image": images, "label": labels})
    logits = jax.jit(functools.partial(predict_logits, state.model))

    def train() -> None:
        nonlocal state
        state, _ = jaxfood_train_step(state, batch)
        jax.block_until_ready(state)

    return {
        "jaxfood training": train,
        "jaxfood evaluation": lambda: logits(variables, batch["image"]).block_until_ready(),
    }


def torch_works(images: np.ndarray, labels: np.ndarray, rival: str) -> dict[str, Work]:
    """The notes' update and evaluation; the pictures are floats already, as the notes' loader gives them."""
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    layout = torch.channels_last if "channels_last" in rival else torch.contiguous_format
    model = Classifier(images.shape[1]).to(device, memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, weight_decay=1e-5)
    pictures = to_torch_images(images.astype(np.float32) / 255).to(device, memory_format=layout)
    answers = torch.from_numpy(labels).long().to(device)
    if "compiled" in rival:
        model.compile()

    @torch.no_grad()
    def evaluate() -> None:
        model.eval()
        model(pictures).cpu()

    return {
        f"{rival} training": lambda: train_step(model, optimizer, pictures, answers)[0].item(),
        f"{rival} evaluation": evaluate,
    }


def measure(works: dict[str, Work], steps: int) -> dict[str, float]:
    """Median seconds of each work, all taking turns."""
    for work in works.values():
        work()
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(steps):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()

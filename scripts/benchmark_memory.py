"""Peak memory of one update against the batch size and the parts it is computed in (`train.accumulate`).

    python scripts/benchmark_memory.py [--batch_sizes 64,128,256] [--parts 1,2,4] [--image_size 128]

Each row is a process of its own that takes two updates of random pictures (forward, backward, clipping, Adam, float32).
"planned" is what the compiled update asks of the device beside its arguments; "measured" is the device's own peak
(accelerators) or the process's largest resident size (CPU: Python, JAX and the compiler included).
"""

import argparse
import resource
import sys

import jax
import numpy as np
from measuring import alone, machine, versions

from jaxfood.config import load_config
from jaxfood.model.networks import init_variables
from jaxfood.training.state import TrainState
from jaxfood.training.step import train_step

GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_sizes", type=numbers, default=(64, 128, 256))
    parser.add_argument("--parts", type=numbers, default=(1, 2, 4))
    parser.add_argument("--image_size", type=int, default=128, help="divisible by 32")
    arguments = parser.parse_args()
    print(f"{alone(machine)}\n{versions()}\n{arguments.image_size} px\n")
    print("| batch | parts | planned GiB | measured GiB |\n|---|---|---|---|")
    for batch_size in arguments.batch_sizes:
        for parts in arguments.parts:
            if batch_size % parts == 0:
                planned, measured = alone(measure, batch_size, parts, arguments.image_size)
                print(f"| {batch_size} | {parts} | {planned / GIB:.2f} | {measured / GIB:.2f} |", flush=True)


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def measure(batch_size: int, parts: int, image_size: int) -> tuple[int, int]:
    """Bytes planned and measured for an update of so many pictures."""
    config = load_config(overrides=(f"data.image_size={image_size}", f"train.accumulate={parts}"))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8)
    batch = jax.device_put({"image": images, "label": rng.integers(0, 11, batch_size, np.int32)})
    state = TrainState.create(config, init_variables(config), total_steps=2)
    planned = train_step.lower(state, batch).compile().memory_analysis().temp_size_in_bytes
    for _ in range(2):
        state, _ = train_step(state, batch)
    jax.block_until_ready(state)
    statistics = jax.devices()[0].memory_stats()
    if statistics:
        return planned, statistics["peak_bytes_in_use"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return planned, peak * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()

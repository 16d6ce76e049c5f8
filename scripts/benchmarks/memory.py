"""Peak memory of one update against the batch size and the parts it is computed in (`train.accumulate`).

    python scripts/benchmarks/memory.py [--batch_sizes 64,128,256] [--parts 1,2,4] [--image_size 128]

Each row is a process of its own that takes two updates of random pictures (forward, backward, clipping, Adam, float32).
"planned" is what the compiled update asks of the device beside its arguments; "measured" is the device's own peak
(accelerators) or the process's largest resident size (CPU: Python, JAX and the compiler included).
"""

from collections.abc import Iterator
from itertools import product

import jax
from measuring import GIB, Parser, alone, machine, peak_memory, print_table, random_pictures, versions

from jaxfood import TrainState, load_config, train_step
from jaxfood.model.networks import init_variables


def main() -> None:
    parser = Parser(__doc__)
    parser.add_numbers(batch_sizes=(64, 128, 256), parts=(1, 2, 4), image_size=128)
    arguments = parser.parse_args()
    print(alone(machine), versions(), f"{arguments.image_size} px\n", sep="\n")

    def rows() -> Iterator[tuple[object, ...]]:
        for batch_size, parts in product(arguments.batch_sizes, arguments.parts):
            if batch_size % parts == 0:
                found = alone(measure, batch_size, parts, arguments.image_size)
                yield batch_size, parts, *(f"{size / GIB:.2f}" for size in found)

    print_table(("batch", "parts", "planned GiB", "measured GiB"), rows())


def measure(batch_size: int, parts: int, image_size: int) -> tuple[int, int]:
    """Bytes planned and measured for an update of so many pictures."""
    config = load_config(
        overrides=("model.num_classes=11", f"data.image_size={image_size}", f"train.accumulate={parts}")
    )
    batch = jax.device_put(random_pictures(batch_size, image_size))
    state = TrainState.create(config, init_variables(config), total_steps=2)
    planned = train_step.lower(state, batch).compile().memory_analysis().temp_size_in_bytes
    for _ in range(2):
        state, _ = train_step(state, batch)
    jax.block_until_ready(state)
    statistics = jax.devices()[0].memory_stats()
    return planned, statistics["peak_bytes_in_use"] if statistics else peak_memory()


if __name__ == "__main__":
    main()

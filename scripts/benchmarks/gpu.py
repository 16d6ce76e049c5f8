"""jaxfood against PyTorch on one GPU: images per second of whole updates, share of the chip's peak, peak memory.

    python scripts/benchmarks/gpu.py [--batch_sizes 64,256,1024] [--only jaxfood,compile] [--layers]
        [--minutes 7.5] [--out FILE]

An update is forward, backward, clipping and Adam on pictures that lie on the device as bytes and are gathered there.
Each variant computes in a process of its own and they take turns, in as many rounds as `--rounds` says; the host waits
for the device at the end of each block of steps only. The median of the blocks is printed, after a warm-up.

jaxfood's updates are made one by one, and 10 in a call as its training makes them (`train.steps_per_call`), by a loop
that is told its length and by one of a fixed length. Beside them stands what XLA made of an update: kernels, and the
bytes that they move.

Whatever is not done after `--minutes` is left out, and said. `--out` has the same in Markdown, written anew after each
variant, so that a call that is cut off leaves what it has.

Where there is no GPU everything runs once, small, so that it can be tested; no speed is then reported.
"""

import os
import statistics
import sys
import tempfile
import time
import traceback
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from measuring import GIB, Parser, alone, need_torch, print_table, table, versions

try:
    import torch
    from gpu_layers import measure_layers
    from gpu_updates import Measurement, Setting, Variant, measure
except ModuleNotFoundError:
    need_torch()
    raise

from jaxfood import cli
from jaxfood.model.classifier import FEATURES, HIDDEN

T = TypeVar("T")

NUM_CLASSES = 11
TARGET = 1.3  # times the best form of PyTorch
NOT_MEASURED = "not measured"
VARIANTS = (  # what decides first: the time may not do for all
    Variant("jaxfood", "bfloat16"),
    Variant("jaxfood", "bfloat16", per_call=10),
    Variant("jaxfood", "bfloat16", per_call=10, fixed=True),
    Variant("PyTorch", "bfloat16", "reduce-overhead"),
    Variant("PyTorch", "bfloat16", "default"),
    Variant("PyTorch", "bfloat16", "eager"),
    Variant("jaxfood", "float32"),
    Variant("PyTorch", "float32", "eager"),
    Variant("PyTorch", "float32", "default"),
    Variant("PyTorch", "bfloat16", "max-autotune"),
    Variant("PyTorch", "bfloat16", "default", gather=False),
    Variant("PyTorch", "bfloat16", "max-autotune", gather=False),
)
LAYER_VARIANTS = tuple(
    Variant(framework, dtype, form)
    for framework, form in (("jaxfood", ""), ("PyTorch", "eager"))
    for dtype in ("float32", "bfloat16")
)

# Dense TFLOP/s of the matrix units in bfloat16 and TF32, by the beginning of the device's name. Sources: NVIDIA's data
# sheets of H100, H200, A100 and L4 (some print twice these figures, which hold for sparse matrices); of RTX 4090 its
# white paper on the Ada architecture (accumulation in float32).
PEAKS = {
    "NVIDIA H200": {"bfloat16": 989, "float32": 495},
    "NVIDIA H100 PCIe": {"bfloat16": 756, "float32": 378},
    "NVIDIA H100 80GB HBM3": {"bfloat16": 989, "float32": 495},
    "NVIDIA A100": {"bfloat16": 312, "float32": 156},
    "NVIDIA L4": {"bfloat16": 121, "float32": 60},
    "NVIDIA GeForce RTX 4090": {"bfloat16": 165, "float32": 83},
}


class Results(NamedTuple):
    """What the variants gave at one batch size: a measurement a round, or what went wrong."""

    setting: Setting
    measured: dict[Variant, list[Measurement]]
    failed: dict[Variant, Exception]

    @property
    def device(self) -> str:
        return next((m[0].device for m in self.measured.values()), self.setting.device)

    def images_per_second(self, variant: Variant) -> float:
        seconds = [s for measurement in self.measured[variant] for s in measurement.seconds]
        return self.setting.batch_size / statistics.median(seconds)

    def best(self, framework: str) -> Variant | None:
        """The fastest variant of a framework."""
        own = [variant for variant in self.measured if variant.framework == framework]
        return max(own, key=self.images_per_second, default=None)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    done = [versions(), "", f"{arguments.image_size} px, {arguments.pictures} pictures on the device"]
    print("\n".join(done), flush=True)
    failed = False
    until = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as compiled:  # what the first round compiles, for the later ones
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", compiled)
        for size in arguments.batch_sizes:
            sizes = (size, arguments.image_size, arguments.pictures, arguments.steps, arguments.blocks)
            setting = Setting(arguments.device, *sizes)
            if arguments.layers:
                failed |= not compare_layers(setting)
            else:
                write = partial(write_report, arguments.out, tuple(done))
                results = compare(arguments.variants, setting, arguments.rounds, until, write)
                print("\n".join(["", *report(results)]), flush=True)
                done += ["", *report(results)]
                failed |= any(not isinstance(error, TimeoutError) for error in results.failed.values())
    if failed:
        sys.exit(1)


def write_report(path: Path | None, before: Sequence[str], results: Results) -> None:
    """Write the lines `before` and the table of a batch size as far as it is known."""
    if path is not None:
        path.write_text("\n".join([*before, "", *report(results)]) + "\n")


def parse(argv: Sequence[str] | None) -> Namespace:
    """The arguments; what is not given is small where there is no GPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = Parser(__doc__)
    if device == "cuda":
        parser.add_numbers(batch_sizes=(64, 256, 1024), image_size=128, pictures=9866)  # as many as Food-11 has
        parser.add_numbers(steps=20, blocks=7, rounds=1)
    else:
        parser.add_numbers(batch_sizes=(4,), image_size=32, pictures=16, steps=2, blocks=1, rounds=1)
    parser.add_argument("--only", default="", help="variants whose name holds one of these words")
    minutes = 7.5 if device == "cuda" else None
    parser.add_argument("--minutes", type=float, default=minutes, help="begin nothing later, and end what is under way")
    parser.add_argument("--out", type=Path, help="a Markdown file for all that is measured")
    parser.add_argument("--layers", action="store_true", help="time each block of the network alone instead")
    arguments = parser.parse_args(argv)
    if arguments.pictures < max(arguments.batch_sizes):
        parser.error(f"--pictures {arguments.pictures} is less than a batch")
    words = arguments.only.split(",")
    arguments.variants = [variant for variant in VARIANTS if any(word in variant.name for word in words)]
    if not arguments.variants:
        parser.error(f"--only {arguments.only}: there are {'; '.join(v.name for v in VARIANTS)}")
    arguments.device = device
    return arguments


def compare(
    variants: Sequence[Variant],
    setting: Setting,
    rounds: int,
    until: float | None = None,
    write: Callable[[Results], None] = lambda results: None,
) -> Results:
    """Measure the variants in turns, each time in a new process. One that fails is not tried again.

    Nothing is begun, and what is under way is ended, when `time.monotonic()` is `until`. What is known is given to
    `write` after each variant.
    """
    results = Results(setting, {}, {})
    for number in range(1, rounds + 1):
        for variant in variants:
            if variant in results.failed:
                continue
            print(f"batch {setting.batch_size}, round {number}: {variant.name}", file=sys.stderr, flush=True)
            result = attempt(measure, variant, setting, until=until)
            if not isinstance(result, Exception):
                results.measured.setdefault(variant, []).append(result)
            elif not (isinstance(result, TimeoutError) and variant in results.measured):  # else an earlier round stands
                results.measured.pop(variant, None)
                results.failed[variant] = result
            write(results)
    return results


def attempt(function: Callable[..., T], *arguments: Any, until: float | None = None) -> T | Exception:
    """`function(*arguments)` in a new process; or, printed too, what the device or a compiler had against it."""
    left = {} if until is None else {"seconds": until - time.monotonic()}
    try:
        if left.get("seconds", 1) <= 0:
            raise TimeoutError
        return alone(function, *arguments, **left)
    except TimeoutError as error:
        print("time is up", file=sys.stderr, flush=True)
        return error
    # Whatever it is, the others are still to be measured: a GPU may not be at hand again.
    except Exception as error:  # noqa: BLE001
        traceback.print_exception(error)
        return error


def report(results: Results) -> list[str]:
    """The table of one batch size, and whether the target is met."""
    setting = results.setting
    header = ("update", "images/s", "of the peak", "peak memory", "to the best PyTorch", "first loss", "program")
    rows = ([variant.name, *cells(results, variant)] for variant in (*results.measured, *results.failed))
    return [
        f"batch {setting.batch_size} on {results.device}: median of the blocks of {setting.steps} updates",
        "",
        *table(header, rows),
        "",
        verdict(results),
        *warnings(results),
    ]


def cells(results: Results, variant: Variant) -> list[str]:
    """A row of the table, after the name."""
    if variant in results.failed:
        error = results.failed[variant]
        up = isinstance(error, TimeoutError)
        return [f"{NOT_MEASURED}: time was up" if up else f"failed: {type(error).__name__}"] + [""] * 5
    measurements = results.measured[variant]
    told = [f"{measurements[0].first_loss:.4f}", measurements[0].program]
    if results.setting.device != "cuda":
        return [NOT_MEASURED] * 4 + told
    rate, best = results.images_per_second(variant), results.best("PyTorch")
    memory = min(m.peak_bytes for m in measurements) / GIB  # JAX's first round holds what compilation tried too
    return [
        f"{rate:.0f}",
        share_of_peak(results.device, variant.dtype, rate, results.setting.image_size),
        f"{memory:.2f} GiB",
        f"{rate / results.images_per_second(best):.2f}" if best else NOT_MEASURED,
        *told,
    ]


def verdict(results: Results) -> str:
    """Whether jaxfood's fastest variant meets the target."""
    target = f"target, {TARGET} times the best PyTorch"
    ours, theirs = results.best("jaxfood"), results.best("PyTorch")
    if results.setting.device != "cuda" or ours is None or theirs is None:
        return f"{target}: {NOT_MEASURED}"
    ratio = results.images_per_second(ours) / results.images_per_second(theirs)
    met = "met" if ratio >= TARGET else "missed"
    return f"{target}: {met} ({ours.name} is {ratio:.2f} times {theirs.name})"


def warnings(results: Results) -> list[str]:
    """That the variants do not do the same work, where it shows: all begin from equal weights and pictures."""
    # A loop of a fixed length tells the mean of its updates alone.
    losses = [of[0].first_loss for variant, of in results.measured.items() if not variant.fixed]
    if not losses or max(losses) - min(losses) <= 0.01 * max(losses):
        return []
    return ["the first losses differ by more than 1 %: something is computed wrongly, and the ratios mean nothing"]


def share_of_peak(device: str, dtype: str, images_per_second: float, image_size: int) -> str:
    """Model FLOP/s over the chip's dense peak."""
    peak = next((peaks[dtype] for name, peaks in PEAKS.items() if device.startswith(name)), None)
    return "unknown" if peak is None else f"{images_per_second * update_flops(image_size) / (peak * 1e12):.1%}"


def update_flops(image_size: int) -> int:
    """Operations of an update for one picture: three times the forward products (Chowdhery et al. 2022, PaLM, app. B).

    A multiplication and an addition are two; normalising, pooling and the optimizer are not counted.
    """
    forward, features_in, pixels = 0, 3, image_size**2
    for features in FEATURES:
        forward += 2 * 9 * features_in * features * pixels
        features_in, pixels = features, pixels // 4
    features_in *= pixels
    for features in (*HIDDEN, NUM_CLASSES):
        forward += 2 * features_in * features
        features_in = features
    return 3 * forward


def compare_layers(setting: Setting) -> bool:
    """Print the milliseconds of each block alone; whether all could be measured."""
    columns = {variant: attempt(measure_layers, variant, setting) for variant in LAYER_VARIANTS}
    measured = {variant: seconds for variant, seconds in columns.items() if not isinstance(seconds, Exception)}
    print(f"\nbatch {setting.batch_size} on {setting.device}, milliseconds of each block alone, median\n")
    rows = []
    for block in next(iter(measured.values()), {}):
        times = [f"{1e3 * seconds[block]:.3f}" for seconds in measured.values()]
        rows.append([block, *(times if setting.device == "cuda" else [NOT_MEASURED] * len(times))])
    print_table(("block", *(variant.name for variant in measured)), rows)
    return len(measured) == len(columns)


if __name__ == "__main__":
    cli.run(main)

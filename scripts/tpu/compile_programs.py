"""Compile the training and evaluation steps for TPUs on a machine that has none, and say what the programs cost.

`pip install 'jaxfood[tpu-compile]'` brings libtpu, whose compiler needs no TPU. One program:

    python scripts/tpu/compile_programs.py --topology v5e:2x2 --chips 1 --pictures 128

The table of docs/scaling.md, most important programs first (each result is kept, so that an interrupted table goes on):

    python scripts/tpu/compile_programs.py --table --results tpu_programs.json

Bytes, operations and memory are XLA's own count for one chip (`cost_analysis`, `memory_analysis`); the collectives, and
the bytes to and from the large memory alone, are read off the compiled program (`program_text`). Nothing is run: how
long a program takes is not known. A body of a loop (`--accumulate`) is counted once.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from program_text import collectives, large_memory_bytes

from jaxfood import load_config
from jaxfood.config.sections import Config
from jaxfood.devices import AXIS, by_rows, compile_step, replicated, takes_rows_by_device
from jaxfood.errors import UserError
from jaxfood.files import write_whole
from jaxfood.model.networks import init_variables
from jaxfood.training.metrics import zero_sums
from jaxfood.training.state import TrainState
from jaxfood.training.step import add_evaluation, add_update

# What libtpu would ask a Cloud TPU's metadata service for, which is not there: minutes of waiting.
_WITHOUT_A_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # two at once only compile
}


@dataclasses.dataclass(frozen=True)
class Program:
    """What is compiled, and for which chips.

    Attributes:
        topology: as libtpu names it: v5e:2x2 is a host, v5e:4x4 a slice of four hosts.
        chips: of it that take part; 0: all.
        pictures: of a batch, for each chip.
        step: `train` or `evaluate`.
        settings: more of a run's, `NAME=VALUE`, with commas between.
    """

    topology: str = "v5e:2x2"
    chips: int = 0
    pictures: int = 128
    step: str = "train"
    model: str = "classifier"
    size: int = 128
    dtype: str = "bfloat16"
    parallel: str = "jit"
    sync: bool = True
    accumulate: int = 1
    settings: str = ""

    @property
    def name(self) -> str:
        """Under which its result is kept."""
        return " ".join(f"{field}={value}" for field, value in dataclasses.asdict(self).items())


_ALONE = Program(chips=1)
# Most important first: each takes a minute or more of two cores.
TABLE = (
    _ALONE,
    dataclasses.replace(_ALONE, topology="v6e:2x2"),
    dataclasses.replace(_ALONE, topology="v5p:2x2x1"),
    Program("v5e:2x2"),
    Program("v5e:4x4"),
    dataclasses.replace(_ALONE, pictures=64),
    dataclasses.replace(_ALONE, pictures=256),
    dataclasses.replace(_ALONE, step="evaluate"),
    Program("v5e:4x4", sync=False),
    Program("v5e:4x4", parallel="pmap"),
    Program("v6e:4x4"),
    Program("v5p:2x2x4"),
    dataclasses.replace(_ALONE, dtype="float32"),
    dataclasses.replace(_ALONE, pictures=256, accumulate=2),
    Program("v5e:4x4", step="evaluate"),
    Program("v5e:2x2", parallel="pmap", sync=False),
)


def described_mesh(topology: str, chips: int) -> Mesh:
    """A mesh of chips that are not there.

    Raises:
        UserError: libtpu is missing, does not know the topology, or it has fewer chips.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("libtpu is not installed: pip install 'jaxfood[tpu-compile]'")
    for name, value in _WITHOUT_A_TPU.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    try:
        devices = topologies.get_topology_desc(topology_name=topology, platform="tpu").devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology {topology}: libtpu says {str(error).splitlines()[0]}") from None
    if chips > len(devices):
        raise UserError(f"--chips {chips}: {topology} has {len(devices)}; ask for fewer")
    return Mesh(np.array(devices[: chips or None]), (AXIS,))


def configuration(program: Program, chips: int) -> Config:
    """The run's that would compile this program."""
    pictures = program.pictures * chips
    settings = {
        "data.source": "folder",
        "data.root": "pictures",
        "data.image_size": program.size,
        "model.name": program.model,
        "model.num_classes": 11,
        "model.dtype": program.dtype,
        "model.sync_batch_norm": str(program.sync).lower(),
        "train.batch_size": pictures,
        "train.parallel": program.parallel,
        "train.accumulate": program.accumulate,
    }
    more = filter(None, program.settings.split(","))
    return load_config(None, [*(f"{name}={value}" for name, value in settings.items()), *more])


def compiled(program: Program, mesh: Mesh) -> Any:
    """The program of `jaxfood.train` for these chips, compiled."""
    config = configuration(program, mesh.size)
    rows = program.pictures * mesh.size
    by_device = takes_rows_by_device(config)

    def everywhere(tree: Any) -> Any:
        # pmap places its arguments itself.
        return _shapes(tree, None if by_device else replicated(mesh))

    def row(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        if by_device:
            return jax.ShapeDtypeStruct((mesh.size, rows // mesh.size, *shape), dtype)
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=by_rows(mesh))

    picture = (program.size, program.size, 3)
    batch = {"image": row(picture, jnp.uint8), "label": row((), jnp.int32), "mask": row((), jnp.float32)}
    state = jax.eval_shape(lambda: TrainState.create(config, init_variables(config), total_steps=1000))
    sums = everywhere(jax.eval_shape(partial(zero_sums, updates=program.step == "train")))
    if program.step == "train":
        return compile_step(add_update, config, mesh, (everywhere(state), sums, batch), donate=(0, 1))
    evaluation = partial(add_evaluation, state.model, state.loss)
    return compile_step(evaluation, config, mesh, (everywhere(state.evaluated), sums, batch), donate=(1,))


def _shapes(tree: Any, sharding: NamedSharding | None) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def measured(program: Program, hlo: Path | None = None) -> dict[str, Any]:
    """Compile a program and say what it costs one chip."""
    mesh = described_mesh(program.topology, program.chips)
    started = time.perf_counter()
    executable = compiled(program, mesh)
    text = executable.as_text()
    if hlo is not None:
        write_whole(hlo, text)
    cost, memory = executable.cost_analysis(), executable.memory_analysis()
    return {
        **dataclasses.asdict(program),
        "chips": mesh.size,
        "hosts": len({device.process_index for device in mesh.devices.flat}),
        "bytes": cost["bytes accessed"],
        "large_memory_bytes": large_memory_bytes(text),
        "operations": cost["flops"],
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "collectives": collectives(text),
        "jax": jax.__version__,
        "seconds_to_compile": round(time.perf_counter() - started, 1),
    }


def markdown(results: Iterable[dict[str, Any]]) -> str:
    """The results as the table of docs/scaling.md."""
    titles = (
        "program",
        "chips",
        "pictures a chip",
        "MB a picture",
        "of large memory",
        "GFLOP a picture",
        "memory, GB",
        "collectives",
    )
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for r in results:
        crossing = ", ".join(
            f"{found['count']} {kind} ({found['bytes'] / 1e6:.2f} MB)" for kind, found in r["collectives"].items()
        )
        cells = (
            _described(r),
            f"{r['chips']} on {r['hosts']} host{'s' * (r['hosts'] > 1)}",
            r["pictures"],
            f"{r['bytes'] / 1e6 / r['pictures']:.1f}",
            f"{r['large_memory_bytes'] / 1e6 / r['pictures']:.1f}",
            f"{r['operations'] / 1e9 / r['pictures']:.2f}",
            f"{r['temporary_bytes'] / 1e9:.2f}",
            crossing or "none",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _described(r: dict[str, Any]) -> str:
    words = [r["topology"].split(":")[0], r["step"], r["dtype"]]
    if r["chips"] > 1:
        words += [r["parallel"]] + ["own BatchNorm"] * (not r["sync"])
    words += [f"{r['accumulate']} parts"] * (r["accumulate"] > 1) + [r["settings"]] * bool(r["settings"])
    return ", ".join(words)


def run_table(path: Path, programs: Sequence[Program] = TABLE) -> list[dict[str, Any]]:
    """Compile what `path` does not hold yet, one after another, and keep each result there."""
    kept: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for program in programs:
        if program.name not in kept:
            print(program.name, flush=True)
            kept[program.name] = measured(program)
            write_whole(path, json.dumps(kept, indent=1) + "\n")
    return [kept[program.name] for program in programs]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Program):
        if isinstance(field.default, bool):
            parser.add_argument(f"--{field.name}", action=argparse.BooleanOptionalAction, default=field.default)
        else:
            parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    parser.add_argument("--table", action="store_true", help="all programs of docs/scaling.md")
    parser.add_argument("--results", type=Path, default=Path("tpu_programs.json"), help="of --table, kept and gone on")
    parser.add_argument("--hlo", type=Path, help="also write the compiled program's text here")
    parsed = vars(parser.parse_args(arguments))
    table, results, hlo = (parsed.pop(name) for name in ("table", "results", "hlo"))
    try:
        if table:
            print(markdown(run_table(results)))
        else:
            found = measured(Program(**parsed), hlo)
            print(json.dumps(found, indent=1))
            print(markdown([found]))
    except UserError as error:
        print(f"compile_programs.py: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

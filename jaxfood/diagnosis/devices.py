"""The devices that JAX sees, and why it sees no more."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jaxfood.diagnosis import in_words, lines_on

_LEAST_DRIVER = {"12": 525, "13": 580}  # of NVIDIA, for a CUDA version (JAX's installation guide)
_PLUGIN = re.compile(r"jax-cuda(\d+)-plugin")


@dataclass(frozen=True)
class Surroundings:
    """What decides whether an accelerator is found.

    Attributes:
        system: as `platform.system` says: Linux, Windows, Darwin.
        driver: the version of NVIDIA's driver, such as "580.65.06"; "" where there is none.
        gpus: how many NVIDIA GPUs are in the machine, as far as the driver tells.
        plugins: the versions of JAX's CUDA plugins, by CUDA version: {"13": "0.10.2"}.
        jaxlib: its version.
        libtpu: whether JAX's TPU library is installed.
        tpu_chips: whether the machine has TPU chips.
        environment: variables that choose devices, of those that are set.
        cuda_error: what JAX says where it has a plugin and finds no GPU.
    """

    system: str = "Linux"
    driver: str = ""
    gpus: int = 0
    plugins: Mapping[str, str] = field(default_factory=dict)
    jaxlib: str = ""
    libtpu: bool = False
    tpu_chips: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    cuda_error: str = ""


def describe_devices() -> Iterator[str]:
    """What JAX computes on, and why on nothing faster."""
    import jax

    found = jax.devices()
    kinds = sorted({device.device_kind for device in found} - {found[0].platform})
    lines = [f"{len(found)} {' '.join([found[0].platform, *kinds])}{_device_memory(found[0])}"]
    if found[0].platform == "cpu":
        lines += list(why_no_accelerator(look_around()))
    yield from lines_on("devices", lines)


def why_no_accelerator(around: Surroundings) -> Iterator[str]:
    """Why JAX computes on the CPU, and the mend, a line each."""
    platforms = around.environment.get("JAX_PLATFORMS", "")
    if platforms and "cuda" not in platforms and "tpu" not in platforms:
        yield f"JAX_PLATFORMS = {platforms} is set: JAX looks for nothing else; unset it"
        return
    if around.tpu_chips and not around.libtpu:
        yield "this machine has TPU chips, and JAX lacks libtpu: pip install 'jaxfood[tpu]'"
    if around.system == "Windows":
        yield "JAX has no GPU build for Windows itself: install jaxfood in WSL2, with 'jaxfood[cuda]'"
        return
    if around.system == "Darwin":
        yield "jaxfood computes on a Mac's CPU: JAX has no tested build for its GPU"
        return
    if not around.driver:
        if around.plugins:
            yield "JAX's CUDA plugin is installed, and no NVIDIA driver is loaded: nvidia-smi should list the GPU"
        else:
            yield "no NVIDIA driver is loaded here: without a GPU that is as it should be"
        return
    if not around.plugins:
        newest = max((cuda for cuda, least in _LEAST_DRIVER.items() if _major(around.driver) >= least), default="")
        package = "jaxfood[cuda]" if newest == "13" else f"jax[cuda{newest or 12}]"
        yield (
            f"NVIDIA's driver {around.driver} is loaded ({around.gpus} GPUs), and JAX is its CPU build: pip install "
            f"'{package}'"
        )
        if not newest:
            yield f"and that driver is older than {_LEAST_DRIVER['12']}, the oldest that JAX works with: upgrade it"
        return
    for cuda, version in around.plugins.items():
        least = _LEAST_DRIVER.get(cuda, 0)
        if _major(around.driver) < least:
            yield f"driver {around.driver} is too old for CUDA {cuda}, which needs {least}: upgrade it" + (
                ", or take 'jax[cuda12]'" if cuda == "13" and _major(around.driver) >= _LEAST_DRIVER["12"] else ""
            )
        if version != around.jaxlib:
            yield (
                f"JAX's CUDA plugin is {version} and jaxlib {around.jaxlib}: they must be the same; pip install "
                f"--upgrade 'jax[cuda{cuda}]'"
            )
    hidden = around.environment.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden in ("", "-1"):
        yield f"CUDA_VISIBLE_DEVICES = {hidden!r} hides every GPU: unset it"
    if around.environment.get("LD_LIBRARY_PATH"):
        yield ("LD_LIBRARY_PATH is set: other CUDA libraries there come before those that JAX brings; try without it")
    if around.cuda_error:
        yield f"JAX says: {around.cuda_error}"


def look_around() -> Surroundings:
    """This machine's."""
    driver, gpus = _nvidia()
    names = ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
    plugins = {
        match[1]: package.version
        for package in importlib.metadata.distributions()
        if (match := _PLUGIN.fullmatch((package.metadata["Name"] or "").replace("_", "-").lower()))
    }
    return Surroundings(
        system=platform.system(),
        driver=driver,
        gpus=gpus,
        plugins=plugins,
        jaxlib=importlib.metadata.version("jaxlib"),
        libtpu=any(package.metadata["Name"] == "libtpu" for package in importlib.metadata.distributions()),
        tpu_chips=any(Path("/dev").glob("accel*")) or "TPU_WORKER_ID" in os.environ,
        environment={name: os.environ[name] for name in names if name in os.environ},
        cuda_error=_cuda_error() if plugins and driver else "",
    )


def _major(driver: str) -> int:
    number = driver.partition(".")[0]
    return int(number) if number.isdecimal() else 0


def _nvidia() -> tuple[str, int]:
    """The driver's version and how many GPUs it has; "" and 0 where there is none."""
    program = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if program is None:
        return "", 0
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError):  # it is there, and has no driver to talk to
        return "", 0
    return (told[0], len(told)) if told else ("", 0)


def _cuda_error() -> str:
    import jax

    try:
        jax.devices("cuda")
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ""


def _device_memory(device: object) -> str:
    stats = getattr(device, "memory_stats", lambda: None)() or {}
    limit = stats.get("bytes_limit")
    return f", {in_words(limit)} each for JAX" if limit else ""

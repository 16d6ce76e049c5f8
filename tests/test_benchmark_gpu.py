"""`scripts/benchmarks/gpu.py`: its table and verdict, and that jaxfood's and PyTorch's updates are the same."""

import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxfood.errors import UserError
from jaxfood.model.classifier import FoodClassifier

pytest.importorskip("torch", reason="compares with PyTorch")
import gpu
import gpu_updates
import measuring
from gpu import Results
from gpu_updates import JaxUpdate, Measurement, Setting, TorchUpdate, Variant

pytestmark = pytest.mark.torch

H100 = "NVIDIA H100 80GB HBM3"
OURS, THEIRS = Variant("jaxfood", "bfloat16"), Variant("PyTorch", "bfloat16", "default")
EAGER = Variant("PyTorch", "float32", "eager")
SMALL = Setting("cpu", batch_size=4, image_size=32, pictures=10, steps=2, blocks=3)


def measurement(*milliseconds: float, loss: float = 2.4, gib: float = 1.0, device: str = H100) -> Measurement:
    return Measurement(device, [m / 1e3 for m in milliseconds], loss, loss - 1, int(gib * 2**30))


def results(measured: dict[Variant, list[Measurement]], device: str = "cuda") -> Results:
    setting = Setting(device, batch_size=1000, image_size=128, pictures=2000, steps=20, blocks=3)
    return Results(setting, measured, failed={})


def rows(report: list[str]) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in report if line.startswith("|")]
    return {row[0]: row[1:] for row in cells}


def test_a_row_is_the_median_over_all_rounds_and_the_smallest_peak() -> None:
    rounds = [measurement(9, 20, 20, gib=3), measurement(20, 20, 50, gib=2)]
    report = gpu.report(results({OURS: rounds, THEIRS: [measurement(40)]}))
    share = 50_000 * gpu.update_flops(128) / 989e12
    assert rows(report)["jaxfood bfloat16"] == ["50000", f"{share:.1%}", "2.00 GiB", "2.00", "2.4000", ""]
    assert rows(report)["PyTorch compile default bfloat16"][3] == "1.00"
    assert H100 in report[0]


@pytest.mark.parametrize(("milliseconds", "says"), [(10, "met"), (12, "missed")])
def test_the_target_is_1_3_times_the_fastest_form_of_pytorch(milliseconds: float, says: str) -> None:
    measured = {OURS: [measurement(milliseconds)], EAGER: [measurement(30)], THEIRS: [measurement(14)]}
    verdict = gpu.verdict(results(measured))
    assert f"{says} (jaxfood bfloat16 is {14 / milliseconds:.2f} times PyTorch compile default bfloat16)" in verdict


def test_without_a_gpu_no_speed_is_reported() -> None:
    measured = {OURS: [measurement(1, device="cpu")], THEIRS: [measurement(2, device="cpu")]}
    report = gpu.report(results(measured, device="cpu"))
    for variant in measured:
        assert rows(report)[variant.name] == ["not measured"] * 4 + ["2.4000", ""]
    assert report[-1].endswith("not measured")


def test_a_failed_variant_is_named_and_leaves_the_others() -> None:
    report = gpu.report(results({OURS: [measurement(1)]})._replace(failed={EAGER: MemoryShortage("no")}))
    assert rows(report)["PyTorch eager float32"][0] == "failed: MemoryShortage"
    assert rows(report)["jaxfood bfloat16"][:1] == ["1000000"]
    assert report[-1].endswith("not measured")


class MemoryShortage(RuntimeError):
    pass


def test_variants_take_turns_and_a_failed_one_is_not_tried_again(monkeypatch, capsys) -> None:
    asked: list[Variant] = []

    def alone(function, variant: Variant, setting: Setting) -> Measurement:
        asked.append(variant)
        if variant == EAGER:
            raise MemoryShortage("out of memory")
        return measurement(len(asked))

    monkeypatch.setattr(gpu, "alone", alone)
    compared = gpu.compare([OURS, EAGER, THEIRS], SMALL, rounds=2)
    assert asked == [OURS, EAGER, THEIRS, OURS, THEIRS]
    assert [len(compared.measured[variant]) for variant in (OURS, THEIRS)] == [2, 2]
    assert list(compared.failed) == [EAGER]
    assert "MemoryShortage: out of memory" in capsys.readouterr().err


def test_unequal_first_losses_are_reported() -> None:
    equal = {OURS: [measurement(1, loss=2.4)], THEIRS: [measurement(1, loss=2.41)]}
    unequal = equal | {THEIRS: [measurement(1, loss=2.5)]}
    assert gpu.warnings(results(equal)) == []
    assert "first losses differ" in gpu.report(results(unequal))[-1]


def test_share_of_peak() -> None:
    flops = gpu.update_flops(128)
    assert gpu.share_of_peak(H100, "bfloat16", 989e12 / flops / 2, 128) == "50.0%"
    assert gpu.share_of_peak("NVIDIA H100 PCIe", "float32", 378e12 / flops, 128) == "100.0%"
    assert gpu.share_of_peak("Radeon", "bfloat16", 1000, 128) == "unknown"


@pytest.mark.parametrize("image_size", [32, 128])
def test_flops_are_those_of_the_models_kernels(image_size: int) -> None:
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
    params = jax.eval_shape(FoodClassifier().init, jax.random.key(0), images)["params"]
    products = 0
    for name, layer in params.items():
        places = (image_size // 2 ** (int(name[-1]) - 1)) ** 2 if name.startswith("block") else 1
        products += math.prod(layer["kernel"].shape) * places
    assert gpu.update_flops(image_size) == 6 * products


@pytest.mark.parametrize(
    "arguments", [["--batch_sizes", "0"], ["--image_size", "48"], ["--pictures", "3"], ["--only", "tensorflow"]]
)
def test_mistakes_in_the_arguments(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as error:
        gpu.parse(arguments)
    assert error.value.code == 2
    assert arguments[0].removesuffix("s") in capsys.readouterr().err


def test_a_gpu_is_not_compared_with_a_cpu() -> None:
    with pytest.raises(UserError, match="PyTorch computes on cuda and JAX on cpu"):
        gpu_updates.check_same_device("cuda")


def test_updates_are_pytorchs() -> None:
    """The first loss belongs to the first weights, the second to the update between."""
    setting = SMALL._replace(batch_size=2)
    ours, theirs = JaxUpdate(Variant("jaxfood", "float32"), setting), TorchUpdate(EAGER, setting)
    losses = []
    for update in (ours, theirs):
        update.start()
        first = update.loss()
        update.wait(update.start())
        losses.append([first, update.loss()])
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-4)
    assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-2)
    assert abs(losses[0][0] - losses[0][1]) > 0.1  # other pictures, other weights
    assert ours.device_name == theirs.device_name == "cpu"


def test_one_batch_of_floats_again_and_again() -> None:
    """Known by heart sooner than all pictures, and with the same first loss."""
    setting = SMALL._replace(steps=1, blocks=2)
    gathered, repeated = (gpu_updates.measure(variant, setting) for variant in (EAGER, EAGER._replace(gather=False)))
    assert repeated.first_loss == pytest.approx(gathered.first_loss, rel=1e-5)
    assert repeated.last_loss < gathered.last_loss / 2
    assert len(repeated.seconds) == 2
    assert min(repeated.seconds) > 0


@pytest.mark.slow
@pytest.mark.parametrize("variant", [Variant("PyTorch", "bfloat16", "eager"), Variant("jaxfood", "bfloat16")])
def test_bfloat16_begins_at_nearly_the_same_loss(variant: Variant) -> None:
    exact, rounded = (gpu_updates.measure(v, SMALL) for v in (EAGER, variant))
    assert rounded.first_loss == pytest.approx(exact.first_loss, rel=0.01)
    assert rounded.first_loss != exact.first_loss


@pytest.mark.slow
def test_blocks_alone() -> None:
    import gpu_layers

    setting = SMALL._replace(batch_size=2, steps=1, blocks=1)
    for variant in (Variant("jaxfood", "bfloat16"), Variant("PyTorch", "bfloat16", "eager")):
        seconds = gpu_layers.measure_layers(variant, setting)
        assert list(seconds) == [f"block{i}{what}" for i in range(1, 6) for what in ("", " with backward")]
        assert min(seconds.values()) > 0


def test_a_process_of_its_own() -> None:
    assert measuring.alone(os.getpid) != os.getpid()


@pytest.mark.slow
def test_the_command() -> None:
    script = Path(gpu.__file__)
    command = [sys.executable, script, "--only", "jaxfood float32,eager float32"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(script.parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    table = rows(done.stdout.splitlines())
    assert table["jaxfood float32"][:4] == table["PyTorch eager float32"][:4] == ["not measured"] * 4
    assert float(table["jaxfood float32"][4]) == pytest.approx(float(table["PyTorch eager float32"][4]), abs=2e-4)
    assert "target, 1.3 times the best PyTorch: not measured" in done.stdout

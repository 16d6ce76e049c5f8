"""What ends a training with a line: numbers that are not finite, too little memory."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfood.config import Config
from jaxfood.errors import UserError
from jaxfood.train import train_and_evaluate
from jaxfood.training.failures import all_finite, enough_memory
from jaxfood.training.loop import Training
from jaxfood.training.metrics import finite_or_none

pytestmark = pytest.mark.usefixtures("narrow")


def test_all_finite() -> None:
    tree = {"w": jnp.ones((3, 2)), "step": jnp.array(3), "half": jnp.ones(2, jnp.bfloat16)}
    assert all_finite(tree)
    for bad in (np.nan, np.inf, -np.inf):
        assert not all_finite(tree | {"b": jnp.array([0, bad])})


def test_a_record_is_strict_json() -> None:
    record = finite_or_none({"epoch": 1, "loss": 0.5, "norm": float("inf"), "other": float("nan")})
    assert json.dumps(record, allow_nan=False) == '{"epoch": 1, "loss": 0.5, "norm": null, "other": null}'


def test_a_validation_loss_that_is_no_number_is_no_best(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was "new best" with status 0, and predict answered 0 for every picture."""
    evaluate = Training._evaluate

    def broken(self: Training) -> tuple[dict[str, float], None]:
        means, _ = evaluate(self)
        return means | ({"loss": float("nan")} if self.step == 6 else {}), None

    monkeypatch.setattr(Training, "_evaluate", broken)
    with pytest.raises(UserError) as error:
        train_and_evaluate(tiny_config, tmp_path / "run")
    text = str(error.value)
    assert text.startswith("the validation loss is nan at step 6 (learning rate 0.0003, gradient norm ")
    assert "the checkpoint of step 3 stands" in text
    command = (
        f"python -m jaxfood.train --config {tmp_path}/run/config.toml --workdir NEW --optimizer.learning_rate 3e-05"
    )
    assert text.endswith(command)
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 1


@pytest.mark.slow
def test_no_checkpoint_holds_what_is_not_finite(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save inside an epoch held NaN and replaced the last good one: no resume succeeded after it."""
    config = replace(tiny_config, checkpoint=replace(tiny_config.checkpoint, every=2))
    save = Training._save

    def poisoned(self: Training, **options: object) -> None:
        if self.step == 4:
            self.state = self.state.replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, self.state.params))
        save(self, **options)

    monkeypatch.setattr(Training, "_save", poisoned)
    with pytest.raises(UserError, match=r"a parameter, .* is no finite number at step 4 .* of step 3 stands"):
        train_and_evaluate(config, tmp_path / "run")
    monkeypatch.undo()
    assert train_and_evaluate(config, tmp_path / "run", resume=True)["epochs"] == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\n trace"),
            "allocating 99 bytes",
        ),
        (MemoryError("Unable to allocate 6.00 GiB for an array"), "(Unable to allocate 6.00 GiB for an array) with"),
        (MemoryError(), "(the host has no more) with"),
    ],
)
def test_too_little_memory_is_said_with_the_mend(error: Exception, said: str, tiny_config: Config) -> None:
    with pytest.raises(UserError) as raised, enough_memory(tiny_config):
        raise error
    text = str(raised.value)
    assert text.startswith("out of memory (")
    assert said in text
    assert "with train.batch_size = 8 at 32 px in 1 part: compute it in more parts, --train.accumulate 2, or" in text
    assert "\n" not in text


def test_other_errors_of_the_device_stay(tiny_config: Config) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError), enough_memory(tiny_config):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

"""The examples: programs of their own on top of the library."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxfood import Config
from jaxfood.config import load_config

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 4])
def test_a_network_and_a_loop_of_ones_own(tiny_food: Path, devices: int, capsys: pytest.CaptureFixture[str]) -> None:
    own = runpy.run_path(str(EXAMPLES / "own_network.py"))
    config: Config = load_config(
        None,
        (
            f"data.root={tiny_food}",
            "data.image_size=32",
            "train.batch_size=8",  # the last of 21 pictures are a batch of five
            "train.epochs=8",
            "optimizer.learning_rate=3e-3",
            "augment.flip=true",
            f"device.count={devices}",
        ),
    )
    params, accuracies = own["train"](config)
    assert params["Dense_0"]["kernel"].shape == (128, 3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert max(accuracies) == 1  # colours alone tell these classes
    assert capsys.readouterr().out.splitlines()[-1] == f"epoch 8: accuracy {accuracies[-1]:.3f}"

"""The recipe of the small student."""

import jax

from jaxfood.config import load_config
from jaxfood.config.loading import recipes
from jaxfood.model.networks import init_variables


def test_it_has_at_most_100_000_parameters() -> None:
    """As HW13 counts them, all that are learned; the head says how many its classes are."""
    config = load_config("student", ("model.num_classes=11",))
    shapes = jax.eval_shape(lambda: init_variables(config))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert 80_000 < count <= 100_000
    assert f"{count:,} with 11 classes" in recipes()["student"].read_text(encoding="utf-8")

"""The lesson residual: the homework's network by its published sizes, its claims, and a short run of the whole."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from lesson_pages import read_lesson

from jaxfood.lessons import residual as lesson
from jaxfood.lessons import run_lesson


def shapes(side: int, **plan: bool) -> Any:
    model = lesson.SampleNetwork(11, **plan)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, side, side, 3)))["params"]


def test_the_network_is_the_homeworks() -> None:
    params = shapes(128)
    assert params["fc1"]["kernel"].shape == (262_144, 256)
    assert params["fc2"]["kernel"].shape == (256, 11)
    assert [params[f"conv{number}"]["kernel"].shape[-1] for number in range(1, 7)] == [64, 64, 128, 128, 256, 256]
    assert shapes(128, mean_head=True)["fc1"]["kernel"].shape == (256, 256)
    assert jax.tree.map(jnp.shape, shapes(32, skips=False)) == jax.tree.map(jnp.shape, shapes(32))


@pytest.mark.slow
def test_skips_add_to_every_second_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the second BatchNorm's scale and bias 0 the skip passes on what comes, and without one nothing does."""
    monkeypatch.setattr(lesson, "CHANNELS", (2, 2))
    monkeypatch.setattr(lesson, "STRIDES", (1, 1))
    images = jax.random.uniform(jax.random.key(1), (3, 4, 4, 3))
    with_skips, without = (lesson.SampleNetwork(5, skips=skips) for skips in (True, False))
    variables = with_skips.init(jax.random.key(0), images)
    norm2 = jax.tree.map(jnp.zeros_like, variables["params"]["norm2"])
    variables = {**variables, "params": {**variables["params"], "norm2": norm2}}
    answers, none = (model.apply(variables, images, mutable=["batch_stats"])[0] for model in (with_skips, without))
    assert jnp.ptp(none, axis=0).max() == 0
    assert jnp.ptp(answers, axis=0).min() > 1e-3


def test_the_claims_are_about_the_highest_of_ten_steps() -> None:
    def network(loss: float, norm: float) -> dict[str, Any]:
        return {"seeds": [{"losses": [2.4, loss, 3.0], "gradient_norms": [1.0, 2.0, norm]}]}

    claims = list(lesson._claims({lesson.BAD: network(79.0, 350.0), lesson.GOOD: network(3.1, 4.0)}))
    assert [claim.measured[0] for claim in claims] == [79, 350, 3.1, 4]
    assert all(claim.holds for claim in claims)
    assert not any(c.holds for c in lesson._claims({lesson.BAD: network(9.0, 99.0), lesson.GOOD: network(5.1, 20.1)}))


@pytest.mark.slow
def test_a_short_run_and_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a small picture and few channels: the flattening network leaps higher than the one with the mean."""
    monkeypatch.setattr(lesson, "SIDE", 32)
    monkeypatch.setattr(lesson, "BATCH", 8)
    monkeypatch.setattr(lesson, "CHANNELS", (8, 8, 16, 16, 32, 32))
    run_lesson("residual", tmp_path)
    page, numbers = read_lesson(tmp_path, "residual", {"steps": (1200, 480)})
    assert numbers["networks"].keys() == lesson.PLANS.keys()
    highest = {name: max(network["seeds"][0]["losses"]) for name, network in numbers["networks"].items()}
    assert highest[lesson.GOOD] < highest[lesson.BAD]
    assert numbers["networks"][lesson.BAD]["features"] == 8 * 8 * 32
    assert "## Claims" in page

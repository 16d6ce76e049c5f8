"""PyTorch's numbers without PyTorch: those that `references/make_numbers.py` stored."""

import json
from typing import Any

import numpy as np
import parity
import pytest
from parity import Tensors

STORED = json.loads(parity.NUMBERS.read_text())
ABSENT = f"no photographs in {parity.DATA} (JAXFOOD_TEST_DATA)"


@pytest.fixture(params=parity.SOURCES)
def source(request: pytest.FixtureRequest) -> str:
    if request.param == "photographs":
        if not parity.has_photographs():
            pytest.skip(ABSENT)
        if parity.checksum("photographs") != STORED["photographs"]["pictures"]:
            pytest.skip(
                "this Pillow decodes the photographs to other pixels than the one that the numbers were made with"
            )
    return request.param


def assert_close(ours: Tensors, stored: dict[str, list[float]], rtol: float, of_whole: float = 0.0) -> None:
    """Norm and projection of each tensor within `rtol` of its norm and `of_whole` of the norm of all together."""
    whole = np.linalg.norm([norm for norm, _ in stored.values()])
    numbers = parity.fingerprint(ours)
    assert numbers.keys() == stored.keys()
    for name, (norm, _) in stored.items():
        np.testing.assert_allclose(
            numbers[name], stored[name], rtol=0, atol=rtol * norm + of_whole * whole, err_msg=name
        )


def test_drawn_pictures_are_those_of_the_stored_numbers() -> None:
    assert parity.checksum("drawn") == STORED["drawn"]["pictures"]


@pytest.mark.smoke
def test_logits(source: str) -> None:
    logits = parity.compare_logits(parity, source)
    np.testing.assert_allclose(logits, STORED[source]["logits"], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_backward(source: str) -> None:
    ours, stored = parity.compare_backward(parity, source), STORED[source]["backward"]
    assert ours.loss == pytest.approx(stored["loss"], rel=1e-10, abs=0)
    assert_close(ours.gradient, stored["gradient"], rtol=1e-8, of_whole=1e-10)
    assert_close(ours.statistics, stored["statistics"], rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["adam float64", "sgd float64"])
def test_training_in_float64(source: str, run: str) -> None:
    ours, stored = parity.compare_run(parity, source, run), STORED[source][run]
    assert ours.losses == pytest.approx(stored["losses"], rel=1e-8, abs=0)
    assert ours.grad_norms == pytest.approx(stored["grad_norms"], rel=1e-8, abs=0)
    assert_close(ours.tensors, stored["tensors"], rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(("run", "tolerance"), [("adam float32", 1e-4), ("sgd float32", 1e-3)])
def test_training_in_float32(source: str, run: str, tolerance: float) -> None:
    ours, stored = parity.compare_run(parity, source, run), STORED[source][run]
    assert ours.losses[0] == pytest.approx(stored["losses"][0], rel=1e-5, abs=0)
    assert ours.grad_norms[0] == pytest.approx(stored["grad_norms"][0], rel=1e-4, abs=0)
    assert ours.losses == pytest.approx(stored["losses"], rel=tolerance, abs=0)


def test_stored_numbers_cannot_hold_a_photograph() -> None:
    """A few numbers a tensor: fewer than one small photograph has pixels."""

    def count(value: Any) -> int:
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 1 if children is None else sum(map(count, children))

    assert count(STORED["photographs"]) < 1000

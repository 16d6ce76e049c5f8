"""Equal weights and equal pictures give PyTorch's numbers, live: on photographs, or on drawn pictures without them."""

import numpy as np
import parity
import pytest
from parity import Backward

pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
import torch_parity

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def source() -> str:
    return "photographs" if parity.has_photographs() else "drawn"


@pytest.fixture(scope="module")
def theirs(source: str) -> Backward:
    return parity.compare_backward(torch_parity, source)


def assert_same_backward(ours: Backward, theirs: Backward) -> None:
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-10, abs=0)
    assert ours.gradient.keys() == theirs.gradient.keys()
    norms = {name: np.linalg.norm(leaf) for name, leaf in theirs.gradient.items()}
    whole = np.linalg.norm(list(norms.values()))
    for name, leaf in theirs.gradient.items():
        assert np.linalg.norm(ours.gradient[name] - leaf) <= 1e-8 * norms[name] + 1e-10 * whole, name
    assert ours.statistics.keys() == theirs.statistics.keys()
    for name, leaf in theirs.statistics.items():
        np.testing.assert_allclose(ours.statistics[name], leaf, rtol=1e-10, atol=1e-10, err_msg=name)


def test_logits(source: str) -> None:
    ours, theirs = (parity.compare_logits(side, source) for side in (parity, torch_parity))
    assert ours.dtype == np.float32
    assert np.ptp(theirs, axis=0).max() > 0.1  # the pictures matter
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_logits_of_other_sizes(source: str) -> None:
    weights = parity.make_weights(64, num_classes=10, gain=parity.HE_GAIN)
    images = parity.make_batch(source, 3, 64)["image"]
    np.testing.assert_allclose(parity.logits(weights, images), torch_parity.logits(weights, images), rtol=0, atol=1e-4)


def test_backward(source: str, theirs: Backward) -> None:
    ours = parity.compare_backward(parity, source)
    assert_same_backward(ours, theirs)
    for i in range(5):
        assert not ours.gradient[f"cnn.{4 * i}.bias"].any()  # BatchNorm takes the bias out; PyTorch's is rounding noise


def test_masked_padding_enters_nothing(source: str, theirs: Backward) -> None:
    """Four more pictures, masked, anywhere in the batch: PyTorch's numbers for the batch without them."""
    batch = parity.make_batch(source, 8, 64, "float64")
    padding = parity.make_batch("drawn", 4, 64, "float64")
    order = np.random.default_rng(0).permutation(12)
    padded = {name: np.concatenate([batch[name], padding[name]])[order] for name in batch}
    padded["mask"] = (np.arange(12) < 8)[order]
    assert_same_backward(parity.backward(parity.make_weights(64, dtype="float64"), padded), theirs)


@pytest.mark.parametrize("run", ["adam float64", "sgd float64"])
def test_training_in_float64(source: str, run: str) -> None:
    ours, theirs = (parity.compare_run(side, source, run) for side in (parity, torch_parity))
    assert ours.losses[0] == pytest.approx(theirs.losses[0], rel=1e-10, abs=0)
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-8, abs=0)
    assert ours.grad_norms == pytest.approx(theirs.grad_norms, rel=1e-8, abs=0)
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name, tensor in theirs.tensors.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(ours.tensors[name], tensor, rtol=1e-8, atol=1e-8, err_msg=name)


def test_the_float64_runs_clip(source: str) -> None:
    norms = parity.compare_run(torch_parity, source, "sgd float64").grad_norms
    assert max(norms) > parity.SGD.clip_norm


@pytest.mark.slow
@pytest.mark.parametrize(("run", "tolerance"), [("adam float32", 1e-4), ("sgd float32", 1e-3)])
def test_training_in_float32(source: str, run: str, tolerance: float) -> None:
    ours, theirs = (parity.compare_run(side, source, run) for side in (parity, torch_parity))
    assert ours.losses[0] == pytest.approx(theirs.losses[0], rel=1e-5, abs=0)
    assert ours.grad_norms[0] == pytest.approx(theirs.grad_norms[0], rel=1e-4, abs=0)
    assert ours.losses == pytest.approx(theirs.losses, rel=tolerance, abs=0)

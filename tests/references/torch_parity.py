"""PyTorch's side of the comparisons that `parity.py` and `optimizer_parity.py` describe, with the same functions."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from optimizer_parity import STEPS, TORCH_CLASSES, Gradient, Tree, configuration
from parity import Backward, Batch, Recipe, Run, Tensors
from torch import nn
from torch_reference import make_classifier, to_torch_images, train_step

from jaxfood.config import OptimizerConfig


def logits(weights: Tensors, images: np.ndarray) -> np.ndarray:
    """Logits `[B, num_classes]` by the running statistics."""
    with torch.no_grad():
        return make_classifier(weights).eval()(to_torch_images(images)).numpy()


def backward(weights: Tensors, batch: Batch) -> Backward:
    """One training batch without an update."""
    model = make_classifier(weights).train()
    loss = nn.functional.cross_entropy(model(to_torch_images(batch["image"])), torch.tensor(batch["label"]).long())
    loss.backward()
    gradient = {name: tensor.grad.numpy() for name, tensor in model.named_parameters() if tensor.grad is not None}
    statistics = {name: tensor.numpy() for name, tensor in model.named_buffers() if "running" in name}
    return Backward(loss.item(), gradient, statistics)


def run(recipe: Recipe, weights: Tensors, batch: Batch) -> Run:
    """A recipe's steps."""
    model = make_classifier(weights)
    optimizer = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[recipe.name](
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    images, labels = to_torch_images(batch["image"]), torch.tensor(batch["label"]).long()
    steps = [train_step(model, optimizer, images, labels, recipe.clip_norm) for _ in range(recipe.steps)]
    losses, grad_norms = ([value.item() for value in values] for values in zip(*steps, strict=True))
    return Run(losses, grad_norms, {name: tensor.numpy() for name, tensor in model.state_dict().items()})


def trajectory(case: str, start: Tree, gradient: Gradient, dtype: str = "float64", steps: int = STEPS) -> list[Tree]:
    """The parameters after each update, computed in a type from the start on."""
    c = configuration(case).optimizer
    with _default_dtype(getattr(torch, dtype)):
        leaves = {name: torch.nn.Parameter(torch.tensor(p.astype(dtype))) for name, p in start.items()}
        optimizer = _make_optimizer(c, leaves)
        result = []
        for step in range(steps):
            grads = gradient(step, {name: leaf.detach().numpy() for name, leaf in leaves.items()})
            for name, leaf in leaves.items():
                leaf.grad = torch.tensor(grads[name])
            torch.nn.utils.clip_grad_value_(leaves.values(), c.clip_value)
            torch.nn.utils.clip_grad_norm_(leaves.values(), c.clip_norm)
            optimizer.step()
            result.append({name: leaf.detach().numpy().copy() for name, leaf in leaves.items()})
    return result


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """NAdam keeps the product of its momenta in the default type, whatever the parameters'."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _make_optimizer(c: OptimizerConfig, leaves: dict[str, torch.nn.Parameter]) -> torch.optim.Optimizer:
    groups = [
        {"params": [leaf], "weight_decay": c.weight_decay if leaf.ndim > 1 or c.decay_biases_and_norms else 0}
        for leaf in leaves.values()
    ]
    same = ("momentum", "lr_decay", "initial_accumulator_value", "eps", "alpha", "centered", "rho", "momentum_decay")
    options = {name: getattr(c, name) for name in same if hasattr(c, name)}
    if hasattr(c, "beta1"):
        options["betas"] = (c.beta1, c.beta2)
    if c.name in ("nesterov", "amsgrad"):
        options[c.name] = True
    return getattr(torch.optim, TORCH_CLASSES[c.name])(groups, lr=c.learning_rate, **options)

"""Write optimizer_numbers.json: where PyTorch's optimizers arrive, for machines without PyTorch.

    python tests/references/make_optimizer_numbers.py

It is also PyTorch's side of the comparison that `optimizer_parity.py` describes.
"""

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import optimizer_parity as parity
import torch
from optimizer_parity import STEPS, TORCH_CLASSES, Gradient, Tree

from jaxfood.config import OptimizerConfig


def main() -> None:
    made_with = f"torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}"
    lines = [f'"made_with": {json.dumps(made_with)}']
    for case in parity.CASES:
        for problem in parity.STORED_PROBLEMS:
            last = trajectory(case, *parity.PROBLEMS[problem])[-1]
            numbers = {name: [float(f"{value:.13g}") for value in p.ravel()] for name, p in last.items()}
            lines.append(f"{json.dumps(f'{case} on {problem}')}: {json.dumps(numbers)}")
    parity.NUMBERS.write_text("{\n " + ",\n ".join(lines) + "\n}\n")


def trajectory(case: str, start: Tree, gradient: Gradient, dtype: str = "float64", steps: int = STEPS) -> list[Tree]:
    """The parameters after each update, computed in a type from the start on."""
    c = parity.configuration(case).optimizer
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


if __name__ == "__main__":
    main()

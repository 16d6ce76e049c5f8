"""PyTorch's side of the comparison that `parity.py` describes, with the same functions."""

import numpy as np
import torch
from parity import Backward, Batch, Recipe, Run, Tensors
from torch import nn
from torch_reference import make_classifier, to_torch_images, train_step


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

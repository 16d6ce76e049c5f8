"""The notes' PyTorch classifier and update, and PyTorch's side of the comparison that `parity.py` describes."""

import itertools
import math

import numpy as np
import torch
from parity import Backward, Batch, Recipe, Run, Tensors
from torch import nn


class Classifier(nn.Module):
    """The notes' `Classifier`, its two sizes left open: images `[B, 3, H, W]` to logits `[B, num_classes]`."""

    def __init__(self, image_size: int = 128, num_classes: int = 11) -> None:
        super().__init__()
        channels = (3, 64, 128, 256, 512, 512)
        layers: list[nn.Module] = []
        for features_in, features_out in itertools.pairwise(channels):
            layers += [nn.Conv2d(features_in, features_out, 3, 1, 1), nn.BatchNorm2d(features_out)]
            layers += [nn.ReLU(), nn.MaxPool2d(2, 2, 0)]
        self.cnn = nn.Sequential(*layers)
        self.fc = nn.Sequential(
            nn.Linear(512 * (image_size // 32) ** 2, 1024),
            nn.ReLU(),
            nn.Linear(1024, 512),
            nn.ReLU(),
            nn.Linear(512, num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.cnn(x).flatten(1))


def make_classifier(weights: Tensors) -> Classifier:
    """A classifier that holds copies of these tensors, of their type; its sizes are read off them."""
    image_size = 32 * math.isqrt(weights["fc.0.weight"].shape[1] // 512)
    num_classes = weights["fc.4.weight"].shape[0]
    model = Classifier(image_size, num_classes).to(torch.from_numpy(weights["fc.0.weight"]).dtype)
    model.load_state_dict({name: torch.tensor(tensor) for name, tensor in weights.items()})
    return model


def train_step(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    clip_norm: float = 10,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The notes' update; the loss, and the gradient's norm before clipping."""
    model.train()
    loss = nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=clip_norm)
    optimizer.step()
    return loss.detach(), grad_norm


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


def to_torch_images(images: np.ndarray) -> torch.Tensor:
    """`[B, H, W, 3]` as PyTorch has it, `[B, 3, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

"""The notes' PyTorch classifier and its update, which the benchmarks and the tests compare with."""

import itertools
import math
from collections.abc import Mapping

import numpy as np
import torch
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


class ResNet(nn.Module):
    """jaxfood's `resnet` in PyTorch, of its default width and blocks: what a PyTorch user would write for it."""

    def __init__(self, num_classes: int = 11, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), _conv(12, width), nn.BatchNorm2d(width), nn.ReLU()]
        for features in (2 * width, 4 * width, 8 * width):
            layers += [_conv(features // 2, features), nn.BatchNorm2d(features), nn.ReLU(), nn.MaxPool2d(2)]
            layers.append(_Residual(features))
        self.cnn = nn.Sequential(*layers)
        self.head = nn.Linear(8 * width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cnn(x).mean((2, 3)))


class _Residual(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.one = nn.Sequential(_conv(features, features), nn.BatchNorm2d(features), nn.ReLU())
        self.two = nn.Sequential(_conv(features, features), nn.BatchNorm2d(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(x + self.two(self.one(x)))


def _conv(features_in: int, features: int) -> nn.Conv2d:
    return nn.Conv2d(features_in, features, 3, padding=1, bias=False)


def make_classifier(weights: Mapping[str, np.ndarray]) -> Classifier:
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


def to_torch_images(images: np.ndarray) -> torch.Tensor:
    """`[B, H, W, 3]` as PyTorch has it, `[B, 3, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

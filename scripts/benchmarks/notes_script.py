"""The notes' own script, timed: its FoodDataset, loaders and loop, which decode every picture again in every epoch.

The model is `torch_reference.Classifier`. Left out are progress bars, the log file (which the notes open and never
write to) and pinned memory, for which a CPU has no use. Resize and ToTensor are written out as torchvision defines them
for a PIL image; torchvision itself is not needed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch_reference import Classifier

from jaxfood import Config
from jaxfood.training.logbook import Stopwatch

Transform = Callable[[Image.Image], torch.Tensor]


class FoodDataset(Dataset):
    """The notes' dataset of given files: opened, resized and converted anew each time one is asked for."""

    def __init__(self, files: Sequence[Path], transform: Transform, watch: Stopwatch) -> None:
        self._files, self._transform, self._watch = files, transform, watch

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path = self._files[index]
        with self._watch("decode"):
            image = self._transform(Image.open(path))
        return image, int(path.name.split("_")[0])


def resize_to_tensor(picture: Image.Image, image_size: int) -> torch.Tensor:
    """torchvision's Resize((S, S)) and ToTensor(): float [3, S, S] in [0, 1]."""
    resized = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous().float().div(255)


def train(config: Config, train_files: Sequence[Path], valid_files: Sequence[Path], best: Path) -> dict[str, Any]:
    """The notes' training with the sizes of a configuration; the best weights are saved to `best`.

    Returns:
        `accuracies`, the validation accuracy of each epoch as the notes have it (a mean over batches), and `seconds` of
        each kind of work.
    """
    settings, image_size, watch = config.train, config.data.image_size, Stopwatch()
    torch.manual_seed(settings.seed)
    model = Classifier(image_size, config.model.num_classes)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0003, weight_decay=1e-5)

    def loader(files: Sequence[Path]) -> DataLoader:
        dataset = FoodDataset(files, lambda picture: resize_to_tensor(picture, image_size), watch)
        return DataLoader(dataset, batch_size=settings.batch_size, shuffle=True, num_workers=0)

    train_loader, valid_loader = loader(train_files), loader(valid_files)
    stale, best_accuracy = 0, 0.0
    accuracies = []
    for _ in range(settings.epochs):
        with watch("train"):
            run_epoch(model, criterion, train_loader, optimizer)
        with watch("validate"):
            accuracies.append(run_epoch(model, criterion, valid_loader))
        if accuracies[-1] > best_accuracy:
            with watch("save"):
                torch.save(model.state_dict(), best)
            stale, best_accuracy = 0, accuracies[-1]
        else:
            stale += 1
            if stale > settings.patience:
                break
    return {"accuracies": accuracies, "seconds": watch.seconds}


def run_epoch(
    model: nn.Module, criterion: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer | None = None
) -> float:
    """An epoch of training, or without an optimizer of validation; the mean over batches of the accuracy."""
    model.train(optimizer is not None)
    losses, accuracies = [], []
    for images, labels in loader:
        with torch.set_grad_enabled(optimizer is not None):
            logits = model(images)
        loss = criterion(logits, labels)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=10)
            optimizer.step()
        losses.append(loss.item())
        accuracies.append((logits.argmax(dim=-1) == labels).float().mean())
    return float(sum(accuracies) / len(accuracies))

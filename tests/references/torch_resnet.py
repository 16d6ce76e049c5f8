"""torchvision's `resnet18` and `resnet34` in plain PyTorch, written from the definition, with torchvision's names."""

from collections.abc import Sequence

import torch
from torch import nn


class BasicBlock(nn.Module):
    def __init__(self, features_in: int, features: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features_in, features, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.downsample = None
        if stride > 1 or features_in != features:
            projection = nn.Conv2d(features_in, features, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Images `[B, 3, H, W]` to logits `[B, num_classes]`; the stem "small" has a 3x3 convolution and no pooling."""

    def __init__(
        self,
        depth: int = 18,
        num_classes: int = 1000,
        stem: str = "imagenet",
        widths: Sequence[int] = (64, 128, 256, 512),
    ) -> None:
        super().__init__()
        size, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = nn.Conv2d(3, widths[0], size, stride, size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        features_in = widths[0]
        counts = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}[depth]
        for layer, (features, count) in enumerate(zip(widths, counts, strict=True), start=1):
            first = BasicBlock(features_in, features, 1 if layer == 1 else 2)
            others = [BasicBlock(features, features, 1) for _ in range(count - 1)]
            setattr(self, f"layer{layer}", nn.Sequential(first, *others))
            features_in = features
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))

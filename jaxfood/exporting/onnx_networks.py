"""Each network as an ONNX graph: the layers of `jaxfood.model`, without what serves training alone (dropout)."""

import json
from functools import singledispatch

import numpy as np
from onnx import TensorProto, helper

from jaxfood.exporting.onnx_graph import Graph
from jaxfood.exporting.trained import INPUT, OUTPUT, Trained, describe
from jaxfood.model.classifier import FEATURES, HIDDEN, FoodClassifier
from jaxfood.model.network import Network
from jaxfood.model.resnet import ResNet
from jaxfood.model.torchvision_resnet import TorchvisionResNet, blocks
from jaxfood.version import __version__


def to_onnx(trained: Trained) -> bytes:
    """A model of uint8 images `[B, H, W, 3]`, of any B, to probabilities, float32 `[B, num_classes]`.

    Its `metadata_props` hold what `describe` says, each value but a text as JSON.

    Raises:
        TypeError: there is no graph for the network.
    """
    size, model = trained.image_size, trained.model
    graph = Graph(trained.variables)
    logits = logits_of(model, graph, _scaled(graph, model.normalize), size)
    images = INPUT, ("batch", size, size, 3)
    result = OUTPUT, ("batch", model.num_classes)
    proto = graph.to_model(images, result, graph.add("Softmax", logits, axis=-1))
    proto.producer_version = __version__
    known = describe(trained).items()
    helper.set_model_props(proto, {key: value if isinstance(value, str) else json.dumps(value) for key, value in known})
    return bytes(proto.SerializeToString())


def _scaled(graph: Graph, normalize: tuple[float, ...]) -> str:
    """The images `[B, H, W, 3]` as the network's layers see them."""
    x = graph.add("Cast", INPUT, to=TensorProto.FLOAT)
    x = graph.add("Div", x, graph.constant("255", 255))
    if not normalize:
        return x
    mean, deviation = np.reshape(normalize, (2, 3))
    x = graph.add("Sub", x, graph.constant("normalize/mean", mean))
    return graph.add("Div", x, graph.constant("normalize/deviation", deviation))


@singledispatch
def logits_of(model: Network, graph: Graph, x: str, size: int) -> str:
    """The logits `[B, num_classes]` of scaled images `[B, size, size, 3]`.

    Raises:
        TypeError: there is no graph for the network.
    """
    raise TypeError(f"no ONNX graph for {type(model).__name__}")


@logits_of.register
def _of_classifier(model: FoodClassifier, graph: Graph, x: str, size: int) -> str:
    x = _channels_first(graph, x)
    features = 3
    for name in (f"block{i}" for i, _ in enumerate(FEATURES, start=1)):
        x = _conv_block(graph, x, name)
        size, features = size // 2, graph.features_of(name)
    x = graph.add("Flatten", x)
    rows: np.ndarray | None = _rows_of_flattened(size, features)
    for name in (f"dense{i}" for i, _ in enumerate(HIDDEN, start=1)):
        x = graph.add("Relu", graph.dense(x, name, rows))
        rows = None
    return graph.dense(x, "head")


@logits_of.register
def _of_resnet(model: ResNet, graph: Graph, x: str, size: int) -> str:
    # `_space_to_depth`, its channels in the order row, column, colour.
    x = graph.add("Reshape", x, graph.constant("squares", (-1, size // 2, 2, size // 2, 2, 3), np.int64))
    x = graph.add("Transpose", x, perm=(0, 2, 4, 5, 1, 3))
    x = graph.add("Reshape", x, graph.constant("stem_shape", (-1, 12, size // 2, size // 2), np.int64))
    x = graph.add("Relu", graph.convolution(x, "stem", "stem_norm"))
    for stage, count in enumerate(model.blocks, start=1):
        x = _conv_block(graph, x, f"stage{stage}")
        for block in range(1, count + 1):
            name = f"stage{stage}_block{block}"
            y = graph.add("Relu", graph.convolution(x, f"{name}/conv1", f"{name}/norm1"))
            y = graph.convolution(y, f"{name}/conv2", f"{name}/norm2")
            x = graph.add("Relu", graph.add("Add", x, y))
    return _pooled_head(graph, x)


@logits_of.register
def _of_torchvision_resnet(model: TorchvisionResNet, graph: Graph, x: str, size: int) -> str:
    x = _channels_first(graph, x)
    is_imagenet = model.stem == "imagenet"
    window = {"stride": 2, "padding": 3} if is_imagenet else {}
    x = graph.add("Relu", graph.convolution(x, "conv1", "bn1", **window))
    if is_imagenet:
        x = graph.max_pool(x, size=3, stride=2, padding=1)
    for name, _, _, stride in blocks(model.depth):
        y = graph.add("Relu", graph.convolution(x, f"{name}/conv1", f"{name}/bn1", stride=stride))
        y = graph.convolution(y, f"{name}/conv2", f"{name}/bn2")
        if graph.has(f"{name}/downsample_conv"):
            x = graph.convolution(x, f"{name}/downsample_conv", f"{name}/downsample_bn", stride=stride, padding=0)
        x = graph.add("Relu", graph.add("Add", x, y))
    return _pooled_head(graph, x)


def _channels_first(graph: Graph, x: str) -> str:
    return graph.add("Transpose", x, perm=(0, 3, 1, 2))


def _rows_of_flattened(size: int, features: int) -> np.ndarray:
    """The order of a flattened picture's values: the network's is height, width, channel, the graph's channel first."""
    return np.arange(size * size * features).reshape(size, size, features).transpose(2, 0, 1).ravel()


def _conv_block(graph: Graph, x: str, name: str) -> str:
    """`model.blocks.ConvBlock`."""
    return graph.max_pool(graph.add("Relu", graph.convolution(x, name, f"{name}/norm")))


def _pooled_head(graph: Graph, x: str) -> str:
    """The mean over the picture and the last layer."""
    return graph.dense(graph.add("Flatten", graph.add("GlobalAveragePool", x)), "head")

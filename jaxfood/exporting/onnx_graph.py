"""An ONNX graph, built layer by layer, with the weights of a network of ours.

Values are `[B, C, H, W]` as ONNX has them; kernels of ours are `[height, width, in, out]`. BatchNorm by running
statistics is a straight line in each channel, so it goes into the convolution before it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from jaxfood.model.layers import EPSILON
from jaxfood.pytorch.layouts import flat_leaves

OPSET = 17
IR_VERSION = 8  # the one of opset 17: ONNX Runtime refuses files of a later one than its own


class Graph:
    """Nodes and weights; each layer takes the name of a value and gives that of the next.

    Args:
        variables: `{"params": ..., "batch_stats": ...}` of the network.
    """

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self._leaves: dict[str, np.ndarray] = flat_leaves(variables)
        self._unused = set(self._leaves)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []

    def has(self, layer: str) -> bool:
        """Whether the network has a layer of this name with a kernel."""
        return f"params/{layer}/kernel" in self._leaves

    def features_of(self, layer: str) -> int:
        """How many channels a layer gives."""
        return self._leaves[f"params/{layer}/kernel"].shape[-1]

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output."""
        output = f"{operator.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, array: Any, dtype: type = np.float32) -> str:
        """A constant of the graph; weights are called as in the network."""
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype), name))
        return name

    def convolution(self, x: str, name: str, norm: str, *, stride: int = 1, padding: int = 1) -> str:
        """The convolution called `name` with the BatchNorm called `norm`, as one."""
        # In float64: two roundings less than the layers that it stands for.
        kernel, scale, shift = (
            self._leaf(leaf).astype(np.float64)
            for leaf in (f"params/{name}/kernel", f"params/{norm}/scale", f"params/{norm}/bias")
        )
        mean, var = (self._leaf(f"batch_stats/{norm}/{leaf}").astype(np.float64) for leaf in ("mean", "var"))
        bias = self._leaf(f"params/{name}/bias") if f"params/{name}/bias" in self._leaves else 0
        factor = scale / np.sqrt(var + EPSILON)
        weights = self.constant(f"{name}/kernel", (kernel * factor).transpose(3, 2, 0, 1))
        offset = self.constant(f"{name}/bias", (bias - mean) * factor + shift)
        window = {"kernel_shape": kernel.shape[:2], "strides": (stride,) * 2, "pads": (padding,) * 4}
        return self.add("Conv", x, weights, offset, **window)

    def max_pool(self, x: str, *, size: int = 2, stride: int = 2, padding: int = 0) -> str:
        """Padded by what is less than any value."""
        return self.add("MaxPool", x, kernel_shape=(size,) * 2, strides=(stride,) * 2, pads=(padding,) * 4)

    def dense(self, x: str, name: str, rows: np.ndarray | None = None) -> str:
        """The fully connected layer called `name`, of `[B, in]`; `rows` is the order that its inputs have here."""
        kernel, bias = self._leaf(f"params/{name}/kernel"), self._leaf(f"params/{name}/bias")
        weights = self.constant(f"{name}/kernel", kernel if rows is None else kernel[rows])
        return self.add("Gemm", x, weights, self.constant(f"{name}/bias", bias))

    def to_model(
        self, images: tuple[str, Sequence[str | int]], result: tuple[str, Sequence[str | int]], output: str
    ) -> onnx.ModelProto:
        """The model, checked.

        Args:
            images: name and shape of the input, uint8.
            result: name and shape of the output, float32.
            output: the value that it is.

        Raises:
            TypeError: weights of the network are in no layer, so that this is another network.
        """
        if self._unused:
            raise TypeError(f"the ONNX graph has no layer for {sorted(self._unused)}")
        self._nodes.append(helper.make_node("Identity", [output], [result[0]], result[0]))
        graph = helper.make_graph(
            self._nodes,
            "jaxfood",
            [helper.make_tensor_value_info(images[0], TensorProto.UINT8, images[1])],
            [helper.make_tensor_value_info(result[0], TensorProto.FLOAT, result[1])],
            self._initializers,
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="jaxfood")
        onnx.checker.check_model(model, full_check=True)
        return model

    def _leaf(self, name: str) -> np.ndarray:
        self._unused.discard(name)
        return self._leaves[name]

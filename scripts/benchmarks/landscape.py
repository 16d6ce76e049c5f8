"""What the Hessian of the full classifier costs: a product, both extreme eigenvalues, memory; beside PyTorch.

    python scripts/benchmarks/landscape.py [--images DIR] [--weights FILE] [--samples 32] [--pyhessian]

The loss is cross-entropy by the running statistics, in float32. The pictures are spread evenly over the sorted files of
a folder, whose names begin with the label; without --images they are noise, and without --weights the weights are new
(of --num_classes). Where PyTorch is installed it checks the eigenpairs by double backward. Gradient and products take
turns, and the median is printed. `--kept_gib 0` shows what it takes to make the gradient anew for every product.

At most --products are made for the eigenvalues. With --products 1 one is made and nothing else: compare the memory of
32 and of 1,000 pictures.
"""

import sys
import time
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from measuring import GIB, Parser, Work, in_turns, peak_memory, print_setting, print_table, random_pictures, timed

from jaxfood import FoodClassifier, from_torch, load_config
from jaxfood.data.decode import decode_picture
from jaxfood.landscape import (
    Eigenpairs,
    Objective,
    Point,
    SpectrumSettings,
    Tolerances,
    expand_downhill,
    extreme_eigenvalues,
    judge,
    lanczos_vectors,
)
from jaxfood.model.fused.forms import to_linearise
from jaxfood.model.networks import init_variables
from jaxfood.pytorch.names import table_of_variables
from jaxfood.pytorch.weights import to_state_dict

TORCH_BATCH = 8  # pictures whose double backward PyTorch keeps at a time


def main() -> None:
    arguments = parse()
    variables = from_torch(arguments.weights) if arguments.weights else new_variables(arguments)
    pictures = load_pictures(arguments, table_of_variables(variables).num_classes)
    point = make_point(variables, pictures, arguments.batch_size, arguments.kept_gib)
    print_setting(f"{point.size:,} parameters ({arguments.weights or 'new'}), float32")
    print(f"{arguments.samples} pictures of {arguments.image_size} px ({arguments.images or 'noise'})\n", flush=True)

    if arguments.products == 1:
        seconds = timed(lambda: point.product(np.ones(point.size))).clock
        print(f"one product with its compilation: {seconds:.0f} s; peak memory {peak_memory() / GIB:.2f} GiB")
        return
    settings = SpectrumSettings(max_products=arguments.products, memory_gib=arguments.memory_gib)
    pairs = measure_eigenvalues(point, settings)
    print(f"peak memory {peak_memory() / GIB:.2f} GiB\n", flush=True)
    top = pairs.vectors[-1]
    works: dict[str, Work] = {
        "gradient": lambda: point.loss_and_gradient_at(np.zeros_like(top)),
        "product": lambda: point.product(top),
    }
    if find_spec("torch"):
        reference = TorchHessian(variables, pictures)
        reference.check(point, pairs)
        works["PyTorch's product"] = lambda: reference.product(reference.tensors(point, top))
        if arguments.pyhessian:
            reference.run_pyhessian()
    medians = {name: seconds.clock for name, seconds in in_turns(works, arguments.turns).items()}
    print_table(
        (f"median of {arguments.turns}", "seconds", "pictures/s", "gradients"),
        (
            (name, f"{seconds:.2f}", f"{arguments.samples / seconds:.1f}", f"{seconds / medians['gradient']:.2f}")
            for name, seconds in medians.items()
        ),
    )


def parse() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--images", type=Path, help="folder of LABEL_NUMBER.jpg")
    parser.add_argument("--weights", type=Path, help="PyTorch weights of the notes' Classifier")
    parser.add_numbers(samples=32, batch_size=32, image_size=128, num_classes=10, products=400, turns=3)
    parser.add_argument("--memory_gib", type=float, default=2.0, help="for Lanczos vectors")
    parser.add_argument(
        "--kept_gib", type=float, default=2.0, help="for what products need of the gradient; 0: nothing"
    )
    parser.add_argument("--pyhessian", action="store_true", help="also PyHessian's largest eigenvalue")
    arguments = parser.parse_args()
    if arguments.pyhessian and not find_spec("pyhessian"):
        parser.error("--pyhessian needs it: pip install pyhessian")
    return arguments


def new_variables(arguments: Namespace) -> dict[str, Any]:
    sizes = (f"data.image_size={arguments.image_size}", f"model.num_classes={arguments.num_classes}")
    return init_variables(load_config(overrides=sizes))


def load_pictures(arguments: Namespace, num_classes: int) -> dict[str, np.ndarray]:
    """`image` uint8 `[N, H, W, 3]` and `label` `[N]`."""
    number, size = arguments.samples, arguments.image_size
    if arguments.images is None:
        return random_pictures(number, size, num_classes)
    paths = sorted(arguments.images.glob("*.jpg"))
    if len(paths) < number:
        sys.exit(f"{arguments.images} has {len(paths)} .jpg files: give fewer --samples or another folder")
    paths = [paths[i * len(paths) // number] for i in range(number)]
    images = np.stack([decode_picture(path, size) for path in paths])
    return {"image": images, "label": np.array([int(path.name.split("_")[0]) for path in paths], np.int32)}


def make_point(variables: dict[str, Any], pictures: dict[str, np.ndarray], batch_size: int, kept_gib: float) -> Point:
    """The mean cross-entropy; the last batch is filled up with pictures that the mask leaves out."""
    model = FoodClassifier(table_of_variables(variables).num_classes)

    def loss(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        images = batch["image"].astype(jnp.float32) / 255
        logits = model.apply({"params": params, "batch_stats": variables["batch_stats"]}, images, train=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return jnp.sum(losses * batch["mask"]), jnp.sum(batch["mask"])

    count = len(pictures["label"])
    batches = []
    for start in range(0, count, batch_size):
        positions = np.arange(start, start + batch_size)
        chosen = {name: array[positions % count] for name, array in pictures.items()}
        batches.append(chosen | {"mask": (positions < count).astype(np.float32)})
    return Point(Objective(loss, batches, to_linearise), variables["params"], kept_gib=kept_gib)


def measure_eigenvalues(point: Point, settings: SpectrumSettings) -> Eigenpairs:
    point.product(np.ones(point.size))  # compiles
    start, before = time.perf_counter(), point.products
    pairs = extreme_eigenvalues(point, settings)
    seconds = time.perf_counter() - start
    print(f"both ends: {seconds:.0f} s, {point.products - before} products", end=", ")
    print(f"{lanczos_vectors(point, settings)} Lanczos vectors, settled: {pairs.settled}\n")
    found = zip(("smallest", "largest"), pairs.values, pairs.residuals, strict=True)
    print_table(
        ("end", "eigenvalue", "residual", "as a share"),
        ((end, f"{value:.6g}", f"{residual:.2g}", f"{residual / abs(value):.2%}") for end, value, residual in found),
    )
    verdict = judge(expand_downhill(point), pairs, Tolerances())
    print(f"\n{verdict.kind}: {verdict.reason}\nwhat would change it: {verdict.remedy}\n", flush=True)
    return pairs


class TorchHessian:
    """PyTorch's Hessian of the same weights and pictures, by double backward; tensors by PyTorch's names."""

    def __init__(self, variables: dict[str, Any], pictures: dict[str, np.ndarray]) -> None:
        import torch
        from torch_reference import make_classifier, to_torch_images

        self._torch = torch
        self._batch_stats = variables["batch_stats"]
        self._model = make_classifier(to_state_dict(variables)).eval()
        self._params = dict(self._model.named_parameters())
        self._count = len(pictures["label"])
        inputs = to_torch_images(pictures["image"].astype(np.float32) / 255)
        targets = torch.from_numpy(pictures["label"]).long()
        self._batches = list(zip(inputs.split(TORCH_BATCH), targets.split(TORCH_BATCH), strict=True))

    def tensors(self, point: Point, vector: np.ndarray) -> dict[str, np.ndarray]:
        """A vector of parameters, in PyTorch's layouts."""
        tensors = to_state_dict({"params": point.tree(vector), "batch_stats": self._batch_stats})
        return {name: tensors[name] for name in self._params}

    def product(self, vector: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The Hessian of the mean loss times a vector."""
        params = list(self._params.values())
        along = [self._torch.from_numpy(vector[name]) for name in self._params]
        total = [self._torch.zeros_like(p) for p in params]
        for inputs, targets in self._batches:
            loss = self._torch.nn.functional.cross_entropy(self._model(inputs), targets, reduction="sum") / self._count
            gradient = self._torch.autograd.grad(loss, params, create_graph=True)
            for t, term in zip(total, self._torch.autograd.grad(gradient, params, grad_outputs=along), strict=True):
                t += term
        return {name: t.numpy() for name, t in zip(self._params, total, strict=True)}

    def check(self, point: Point, pairs: Eigenpairs) -> None:
        """Both eigenvectors' products, by either framework."""
        rows = []
        for end, value, vector in zip(("smallest", "largest"), pairs.values, pairs.vectors, strict=True):
            v = self.tensors(point, vector)
            ours, theirs = self.tensors(point, point.product(vector)), self.product(v)
            difference = norm({name: ours[name] - theirs[name] for name in ours}) / norm(ours)
            rayleigh = sum(float(np.vdot(v[name].astype(np.float64), theirs[name])) for name in v)
            residual = norm({name: theirs[name] - value * v[name] for name in v})
            rows.append((end, f"{value:.6g}", f"{rayleigh:.6g}", f"{difference:.1e}", f"{residual:.2g}"))
        print_table(("end", "v.Hv", "PyTorch's", "difference of Hv", "PyTorch's residual"), rows)
        print()

    def run_pyhessian(self) -> None:
        """The largest eigenvalue by PyHessian's power iteration, ended by a change of 1 %."""
        from pyhessian import hessian

        computation = hessian(self._model, self._torch.nn.CrossEntropyLoss(), dataloader=self._batches, cuda=False)
        make_product, products = computation.dataloader_hv_product, []

        def counted(vector: Any) -> Any:
            products.append(1)
            return make_product(vector)

        computation.dataloader_hv_product = counted
        start = time.perf_counter()
        ((value,), _) = computation.eigenvalues(tol=0.01)
        print(f"PyHessian's largest: {value:.6g}, {time.perf_counter() - start:.0f} s, {len(products)} products\n")


def norm(tensors: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(np.square(tensor, dtype=np.float64)) for tensor in tensors.values())))


if __name__ == "__main__":
    main()

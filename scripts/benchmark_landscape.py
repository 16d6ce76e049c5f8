"""What the Hessian of the full classifier costs: a product, both extreme eigenvalues, memory; beside PyTorch.

    python scripts/benchmark_landscape.py [--images DIR] [--weights FILE] [--samples 32] [--pyhessian]

The loss is cross-entropy by the running statistics, in float32. The pictures are spread evenly over the sorted files of
a folder, whose names begin with the label; without --images they are noise, and without --weights the weights are new.
Where PyTorch is installed it checks the eigenpairs by double backward. Gradient and products take turns, so that a
machine whose speed drifts slows them all, and the median is printed.

With --products 1 one product is made and nothing else: compare the memory of 32 and of 1,000 pictures.
"""

import argparse
import importlib.util
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from measuring import machine, versions

from jaxfood import FoodClassifier, from_torch, load_config
from jaxfood.config.losses import CrossEntropy
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
from jaxfood.model.networks import init_variables, predict_logits
from jaxfood.optim.losses import make_loss
from jaxfood.pytorch.names import table_of_variables
from jaxfood.pytorch.weights import to_state_dict
from jaxfood.training.metrics import batch_sums

Work = Callable[[], object]  # ends when the device has done it
TORCH_BATCH = 8  # pictures whose double backward PyTorch keeps at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of LABEL_NUMBER.jpg")
    parser.add_argument("--weights", type=Path, help="PyTorch weights of the notes' Classifier")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--image_size", type=int, default=128, help="divisible by 32")
    parser.add_argument("--num_classes", type=int, default=10, help="of new weights")
    parser.add_argument("--products", type=int, default=400, help="at most, for the eigenvalues")
    parser.add_argument("--memory_gib", type=float, default=2.0, help="for Lanczos vectors")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--pyhessian", action="store_true", help="also PyHessian's largest eigenvalue")
    arguments = parser.parse_args()
    if (
        min(arguments.samples, arguments.batch_size, arguments.products, arguments.turns) < 1
        or arguments.image_size % 32
    ):
        parser.error("give positive numbers, and an --image_size divisible by 32")
    if arguments.pyhessian and not importlib.util.find_spec("pyhessian"):
        parser.error("--pyhessian needs it: pip install pyhessian")

    variables = from_torch(arguments.weights) if arguments.weights else new_variables(arguments)
    images, labels = load_pictures(arguments, table_of_variables(variables).num_classes)
    point = make_point(variables, images, labels, arguments.batch_size)
    print(f"{machine()}\n{versions()}")
    print(f"{point.size:,} parameters ({arguments.weights or 'new'}), float32")
    print(f"{len(images)} pictures of {arguments.image_size} px ({arguments.images or 'noise'})\n", flush=True)

    if arguments.products == 1:
        seconds = timed(lambda: point.product(np.ones(point.size)))
        print(f"one product with its compilation: {seconds:.0f} s; peak memory {peak_memory():.2f} GiB")
        return
    settings = SpectrumSettings(max_products=arguments.products, memory_gib=arguments.memory_gib)
    pairs = measure_eigenvalues(point, settings)
    print(f"peak memory {peak_memory():.2f} GiB\n", flush=True)
    top = pairs.vectors[-1]
    works: dict[str, Work] = {
        "gradient": lambda: point.loss_and_gradient_at(np.zeros_like(top)),
        "product": lambda: point.product(top),
    }
    if importlib.util.find_spec("torch"):
        reference = TorchHessian(variables, images, labels)
        reference.check(point, pairs)
        works["PyTorch's product"] = lambda: reference.product(reference.tensors(point, top))
        if arguments.pyhessian:
            reference.run_pyhessian()
    compare_times(works, arguments.turns, len(images))


# Pictures, weights, loss.


def new_variables(arguments: argparse.Namespace) -> dict[str, Any]:
    sizes = (f"data.image_size={arguments.image_size}", f"model.num_classes={arguments.num_classes}")
    return init_variables(load_config(overrides=sizes))


def load_pictures(arguments: argparse.Namespace, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[N, H, W, 3]` and labels `[N]`."""
    number, size = arguments.samples, arguments.image_size
    if arguments.images is None:
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (number, size, size, 3), np.uint8), rng.integers(0, num_classes, number, np.int32)
    paths = sorted(arguments.images.glob("*.jpg"))
    if len(paths) < number:
        sys.exit(f"{arguments.images} has {len(paths)} .jpg files: give fewer --samples or another folder")
    paths = [paths[i * len(paths) // number] for i in range(number)]
    images = np.stack([decode_picture(path, size) for path in paths])
    return images, np.array([int(path.name.split("_")[0]) for path in paths], np.int32)


def make_point(variables: dict[str, Any], images: np.ndarray, labels: np.ndarray, batch_size: int) -> Point:
    """The mean cross-entropy; the last batch is filled up with pictures that the mask leaves out."""
    model = FoodClassifier(table_of_variables(variables).num_classes)
    cross_entropy = make_loss(CrossEntropy(), model.num_classes)

    def loss(params: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        logits = predict_logits(model, {"params": params, "batch_stats": variables["batch_stats"]}, batch["image"])
        sums = batch_sums(cross_entropy, logits, batch)
        return sums["loss"], sums["weight"]

    batches = []
    for start in range(0, len(images), batch_size):
        positions = np.arange(start, start + batch_size)
        chosen = positions % len(images)
        batches.append({"image": images[chosen], "label": labels[chosen], "mask": positions < len(images)})
    return Point(Objective(loss, batches), variables["params"])


# Measurements.


def measure_eigenvalues(point: Point, settings: SpectrumSettings) -> Eigenpairs:
    point.product(np.ones(point.size))  # compiles
    start, before = time.perf_counter(), point.products
    pairs = extreme_eigenvalues(point, settings)
    seconds = time.perf_counter() - start
    print(f"both ends: {seconds:.0f} s, {point.products - before} products", end=", ")
    print(f"{lanczos_vectors(point, settings)} Lanczos vectors, settled: {pairs.settled}\n")
    print("| end | eigenvalue | residual | as a share |\n|---|---|---|---|")
    for end, value, residual in zip(("smallest", "largest"), pairs.values, pairs.residuals, strict=True):
        print(f"| {end} | {value:.6g} | {residual:.2g} | {residual / abs(value):.2%} |")
    verdict = judge(expand_downhill(point), pairs, Tolerances())
    print(f"\n{verdict.kind}: {verdict.reason}\nwhat would change it: {verdict.remedy}\n", flush=True)
    return pairs


def compare_times(works: dict[str, Work], turns: int, pictures: int) -> None:
    """Median seconds of each work, all taking turns after a warm-up."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            seconds[name].append(timed(work))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"| median of {turns} | seconds | pictures/s | gradients |\n|---|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.2f} | {pictures / median:.1f} | {median / medians['gradient']:.2f} |")


def timed(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_memory() -> float:
    """Of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# PyTorch.


class TorchHessian:
    """PyTorch's Hessian of the same weights and pictures, by double backward; tensors by PyTorch's names."""

    def __init__(self, variables: dict[str, Any], images: np.ndarray, labels: np.ndarray) -> None:
        import torch
        from torch_reference import make_classifier, to_torch_images

        self._torch = torch
        self._batch_stats = variables["batch_stats"]
        self._model = make_classifier(to_state_dict(variables)).eval()
        self._params = dict(self._model.named_parameters())
        self._count = len(images)
        inputs, targets = to_torch_images(images.astype(np.float32) / 255), torch.from_numpy(labels).long()
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
        print("| end | v.Hv | PyTorch's | difference of Hv | PyTorch's residual |\n|---|---|---|---|---|")
        for end, value, vector in zip(("smallest", "largest"), pairs.values, pairs.vectors, strict=True):
            v = self.tensors(point, vector)
            ours, theirs = self.tensors(point, point.product(vector)), self.product(v)
            size, difference = norm(ours), norm({name: ours[name] - theirs[name] for name in ours})
            rayleigh = sum(float(np.vdot(v[name].astype(np.float64), theirs[name])) for name in v)
            residual = norm({name: theirs[name] - value * v[name] for name in v})
            print(f"| {end} | {value:.6g} | {rayleigh:.6g} | {difference / size:.1e} | {residual:.2g} |", flush=True)
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

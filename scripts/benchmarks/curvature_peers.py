"""The Hessian, Gauss-Newton and Fisher of the notes' classifier, beside curvlinops and PyHessian on the same weights.

    python scripts/benchmarks/curvature_peers.py [--weights FILE] [--images DIR] [--samples 8] [--image_size 32]

The network is PyTorch's, its weights and pictures the same, all in float64; without --weights they are new, without
--images the pictures are noise. For each matrix a product with the same random vector, its --top largest eigenvalues
and its trace (both sides by Hutch++, of other random vectors). Needs torch and curvlinops-for-pytorch; PyHessian, which
knows the Hessian alone, is asked where it is installed.
"""

import sys
import time
from argparse import Namespace
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import Parser, need_torch, print_setting, print_table, random_pictures

from jaxfood import FoodClassifier, from_torch, load_config
from jaxfood.data.decode import decode_picture
from jaxfood.files import to_path
from jaxfood.landscape import Matrix, NetworkLoss, Point, SpectrumSettings, top_eigenpairs, trace
from jaxfood.model.networks import init_variables, to_float
from jaxfood.optim.losses import cross_entropy
from jaxfood.pytorch.names import table_of_variables
from jaxfood.pytorch.weights import to_state_dict

HESSIAN = "hessian"


def main() -> None:
    arguments = parse()
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), load_variables(arguments))
        pictures = load_pictures(arguments, table_of_variables(variables).num_classes)
        network = make_network(variables, pictures)
        point = Point(network.objective, variables["params"])
        print_setting(f"{point.size:,} parameters ({arguments.weights or 'new'}), float64")
        print(
            f"{arguments.samples} pictures of {arguments.image_size} px ({arguments.images or 'noise'})\n", flush=True
        )
        compare(arguments, network, point, Peers(variables, pictures))


def parse() -> Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--images", help="folder of LABEL_NUMBER.jpg")
    parser.add_argument("--weights", help="PyTorch weights of the notes' Classifier")
    parser.add_numbers(samples=8, image_size=32, num_classes=10, top=3, products=60, trace_products=12)
    arguments = parser.parse_args()
    need_torch()
    if not find_spec("curvlinops"):
        sys.exit("curvlinops is missing, and the comparison is with it: pip install curvlinops-for-pytorch")
    if not find_spec("pyhessian"):
        print("PyHessian is not asked, as it is missing: pip install pyhessian")
    return arguments


def load_variables(arguments: Namespace) -> dict[str, Any]:
    if arguments.weights:
        return from_torch(arguments.weights)
    sizes = (f"data.image_size={arguments.image_size}", f"model.num_classes={arguments.num_classes}")
    return init_variables(load_config(overrides=sizes))


def load_pictures(arguments: Namespace, num_classes: int) -> dict[str, np.ndarray]:
    """`image` float64 `[N, H, W, 3]` in [0, 1] and `label` `[N]`."""
    number, size = arguments.samples, arguments.image_size
    if arguments.images is None:
        pictures = random_pictures(number, size, num_classes)
    else:
        paths = sorted(to_path(arguments.images).glob("*.jpg"))
        if len(paths) < number:
            sys.exit(f"{arguments.images} has {len(paths)} .jpg files: give fewer --samples or another folder")
        paths = [paths[i * len(paths) // number] for i in range(number)]
        images = np.stack([decode_picture(path, size) for path in paths])
        pictures = {"image": images, "label": np.array([int(path.name.split("_")[0]) for path in paths], np.int32)}
    return {"image": pictures["image"].astype(np.float64) / 255, "label": pictures["label"]}


def make_network(variables: dict[str, Any], pictures: dict[str, np.ndarray]) -> NetworkLoss:
    model = FoodClassifier(table_of_variables(variables).num_classes)

    def outputs(params: Any, batch: Any) -> jax.Array:
        whole = {"params": params, "batch_stats": batch["batch_stats"]}
        return model.apply(whole, to_float(batch["image"]), train=False)  # type: ignore[return-value]

    def losses(logits: jax.Array, batch: Any) -> tuple[jax.Array, jax.Array]:
        return cross_entropy(logits, batch["label"]), jnp.ones(len(logits))

    return NetworkLoss(outputs, losses, [pictures | {"batch_stats": variables["batch_stats"]}])


def compare(arguments: Namespace, network: NetworkLoss, point: Point, peers: "Peers") -> None:
    settings = SpectrumSettings(
        dense_size=0, accuracy=1e-4, max_products=arguments.products, trace_products=arguments.trace_products
    )
    along = np.random.default_rng(0).standard_normal(point.size)
    points = {HESSIAN: point, **{str(m): network.at(point, m) for m in (Matrix.GAUSS_NEWTON, Matrix.EMPIRICAL_FISHER)}}
    for name, there in points.items():
        start = time.perf_counter()
        ours, theirs = peers.in_layout(point, there.product(along)), peers.product(name, peers.in_layout(point, along))
        difference = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        print(f"{name}: a product differs from curvlinops' by {difference:.1e} of its norm", flush=True)
        top, traced = top_eigenpairs(there, settings, arguments.top), trace(there, settings)
        rows = [
            ("jaxfood", *(f"{value:.8g}" for value in top.values), f"{traced.value:.4g} ± {traced.standard_error:.1g}")
        ]
        rows += peers.rows(name, arguments)
        print_table(("", *(f"eigenvalue {n}" for n in range(1, arguments.top + 1)), "trace"), rows)
        print(f"{time.perf_counter() - start:.0f} s\n", flush=True)


class Peers:
    """The same in PyTorch, by curvlinops and PyHessian."""

    def __init__(self, variables: dict[str, Any], pictures: dict[str, np.ndarray]) -> None:
        import curvlinops
        import torch
        from torch_reference import make_classifier, to_torch_images

        torch.manual_seed(0)
        self._torch, self._batch_stats = torch, variables["batch_stats"]
        self._model = make_classifier(to_state_dict(variables)).eval()
        self._data = [(to_torch_images(pictures["image"]), torch.from_numpy(pictures["label"]).long())]
        self._loss = torch.nn.CrossEntropyLoss()
        self._names = [name for name, _ in self._model.named_parameters()]
        params = list(self._model.parameters())
        kinds = {
            HESSIAN: curvlinops.HessianLinearOperator,
            str(Matrix.GAUSS_NEWTON): curvlinops.GGNLinearOperator,
            str(Matrix.EMPIRICAL_FISHER): curvlinops.EFLinearOperator,
        }
        self._operators = {
            name: kind(self._model, self._loss, params, self._data, check_deterministic=False)
            for name, kind in kinds.items()
        }

    def in_layout(self, point: Point, vector: np.ndarray) -> np.ndarray:
        """A vector of our parameters in the order and the layouts of PyTorch's."""
        tensors = to_state_dict({"params": point.tree(jnp.asarray(vector)), "batch_stats": self._batch_stats})
        return np.concatenate([np.ravel(tensors[name]) for name in self._names])

    def product(self, name: str, vector: np.ndarray) -> np.ndarray:
        """The matrix times a vector in their layout."""
        result: np.ndarray = (self._operators[name] @ self._torch.from_numpy(vector)).detach().numpy()
        return result

    def rows(self, name: str, arguments: Namespace) -> list[tuple[str, ...]]:
        """Eigenvalues and trace by each of them."""
        from curvlinops import hutchpp_trace
        from scipy.sparse.linalg import eigsh

        operator = self._operators[name]
        values = eigsh(operator.to_scipy(), arguments.top, which="LA", tol=1e-4, return_eigenvectors=False)[::-1]
        traced = float(hutchpp_trace(operator, arguments.trace_products))
        found = [("curvlinops", *(f"{value:.8g}" for value in np.sort(values)[::-1]), f"{traced:.4g}")]
        if name == HESSIAN and find_spec("pyhessian"):
            from pyhessian import hessian

            computation = hessian(self._model, self._loss, data=self._data[0], cuda=False)
            values, _ = computation.eigenvalues(maxIter=arguments.products, tol=1e-4, top_n=arguments.top)
            traces = computation.trace(maxIter=arguments.trace_products)
            found += [("PyHessian", *(f"{value:.8g}" for value in values), f"{np.mean(traces):.4g}")]
        return found


if __name__ == "__main__":
    main()

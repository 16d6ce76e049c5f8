"""Critical points of two small tanh networks, at every height of the loss that trainings pass."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxfood.landscape import Objective, Point, Search, find_critical_point
from jaxfood.lessons.descent import descend, optimizer_settings
from jaxfood.lessons.least_gradient import least_gradient

SETTINGS = optimizer_settings("momentum", 0.1)
STEPS = 3000
TAKEN = (0, 5, 10, 20, 40, 80, 160, 400, STEPS)  # steps of training after which the gradient is minimised
SCALES, TRAININGS = (0.1, 0.3, 0.6, 1.0), 2  # deviations of the weights at the start, and trainings from each
EVALUATIONS = 200  # of the gradient, at most, for each start
SEARCH = Search(steps=1, tolerance=1e-9)  # what judges where that ended
ZERO = 1e-6  # of the largest magnitude: an eigenvalue counts as 0 up to it


class Network(NamedTuple):
    """A network of one hidden layer without biases, and what it learns.

    Attributes:
        inputs: how many, normal, of variances 1, 1/2, 1/3 ... for an autoencoder, else of 1.
        hidden: units of tanh.
        outputs: how many random targets; 0: the inputs.
        examples: how many.
        weight_decay: half of it times the sum of squares of the weights belongs to the loss.
    """

    inputs: int
    hidden: int
    outputs: int
    examples: int
    weight_decay: float

    @property
    def size(self) -> int:
        """Parameters."""
        return self.hidden * (self.inputs + (self.outputs or self.inputs))


NETWORKS = {"autoencoder": Network(6, 6, 0, 60, 0.01), "random targets": Network(4, 10, 3, 30, 0.003)}


def loss_of(network: Network, seed: int) -> Callable[[jax.Array], jax.Array]:
    """Of parameters `[size]`: the squared error by that of answers that are 0, and the weight decay."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((network.examples, network.inputs))
    if network.outputs:
        targets = rng.standard_normal((network.examples, network.outputs))
    else:
        inputs /= np.sqrt(np.arange(1, network.inputs + 1))
        inputs /= np.sqrt(np.mean(inputs**2))
        targets = inputs
    before = network.inputs * network.hidden

    def loss(params: jax.Array) -> jax.Array:
        encoder, decoder = params[:before].reshape(-1, network.hidden), params[before:].reshape(network.hidden, -1)
        error = jnp.sum((jnp.tanh(inputs @ encoder) @ decoder - targets) ** 2) / np.sum(targets**2)
        return error + network.weight_decay / 2 * jnp.sum(params**2)

    return loss


def survey(network: Network, seed: int) -> list[dict[str, Any]]:
    """Where searches end that start from points on trainings, in float64 (`jax.enable_x64`).

    Returns:
        for each search: `scale` and `step` of its start; the `ending` (`landscape.Ending`), `gradient_norm`,
        `flatness`, `loss`, and the `share` of negative eigenvalues there.
    """
    loss = loss_of(network, seed)
    gradient, hessian = jax.jit(jax.grad(loss)), jax.jit(jax.hessian(loss))
    objective = Objective.of(loss)
    points = list[dict[str, Any]]()
    for scale in SCALES:
        for number in range(TRAININGS):
            start = scale * np.random.default_rng([1, seed, number]).standard_normal(network.size)
            way = descend(loss, start.tolist(), SETTINGS, STEPS).points
            for step in TAKEN:
                least = least_gradient(gradient, hessian, way[step], tolerance=1e-15, evaluations=EVALUATIONS)
                points.append({"scale": scale, "step": step, **_judged(objective, hessian, least)})
    return points


def _judged(objective: Objective, hessian: Callable[..., Any], params: np.ndarray) -> dict[str, Any]:
    """What `landscape`'s own search says of a point, and the index there."""
    found = find_critical_point(Point(objective, jnp.asarray(params)), SEARCH)
    eigenvalues = np.linalg.eigvalsh(hessian(found.params))
    return {
        "ending": str(found.ending),
        "gradient_norm": found.gradient_norm,
        "flatness": found.flatness,
        "loss": objective.value(found.params),
        "share": float(np.mean(eigenvalues < -ZERO * np.abs(eigenvalues).max())),
    }

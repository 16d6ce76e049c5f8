# %% [markdown]
r"""
# Critical points: minimum or saddle?

[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/jaxfood/blob/main/notebooks/critical_points.ipynb)

The loss no longer falls. Is it a local minimum, from which there is no way down, or a saddle, which has one? The
notes answer by the Hessian: first for a network of two weights, where everything can be computed by hand, and here
also for a real one. Then momentum: what it goes through, and what it does not.

The notebook needs no data and takes a minute or two on two CPU cores.
"""

# %% tags=["install"]
# Where jaxfood is missing it is installed: from a wheel beside this notebook, or from the package index.
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("jaxfood") is None:
    extras = "evaluate,cuda" if shutil.which("nvidia-smi") else "evaluate"
    wheel = max(Path().glob("jaxfood-*.whl"), default=None)
    source = f" @ {wheel.resolve().as_uri()}" if wheel else ""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", f"jaxfood[{extras}]{source}"], check=True)
    importlib.invalidate_caches()

# %% tags=["parameters"]
EPOCHS = 6  # of the small network at the end
PICTURES = 64  # that its loss is taken on

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxfood
from jaxfood.cli import set_up_jax
from jaxfood.config.sections import DeviceConfig
from jaxfood.landscape import (
    LineSearch,
    Objective,
    Point,
    SpectrumSettings,
    Tolerances,
    compare,
    escape,
    expand_downhill,
    extreme_eigenvalues,
    judge,
    loss_slice,
)

set_up_jax(DeviceConfig())  # as the commands do: what is compiled once is kept for the next time
print("jaxfood", jaxfood.__version__, "on", *jax.devices())

# %% [markdown]
r"""
## The notes' network of two weights

One input $x = 1$, two weights in a row, the target $1$: the loss is $L = (1 - w_1 w_2)^2$. Its gradient is $-2 (1 -
w_1 w_2) (w_2, w_1)$, which is zero at the origin, and wherever $w_1 w_2 = 1$.

`Objective.of` takes any function of parameters, and a `Point` is that function somewhere.
"""


# %%
def notes_loss(w):
    """The loss of weights `[2, ...]`."""
    return (1 - w[0] * w[1]) ** 2


def at(w1, w2):
    """The loss at a point."""
    return Point(Objective.of(notes_loss), np.array([w1, w2], np.float32))


origin = at(0, 0)
print("loss    ", origin.loss)
print("gradient", origin.gradient)
print("Hessian ", origin.hessian.tolist(), " by hand: [[0, -2], [-2, 0]]")

# %% [markdown]
r"""
## The eigenvalues tell

At a critical point $L(\theta + \epsilon v) \approx L(\theta) + \frac{1}{2} \epsilon^2 v^T H v$: along the eigenvector
of a positive eigenvalue the loss rises, along that of a negative one it falls. All positive: a minimum. Both signs: a
saddle.
"""

# %%
for w in ((0, 0), (1, 1), (2, 0.5), (-1, -1), (0.3, 0.2)):
    point = at(*w)
    pairs = extreme_eigenvalues(point, SpectrumSettings())
    verdict = judge(expand_downhill(point), pairs, Tolerances())
    print(f"{w!s:<11} loss {point.loss:.3f}  eigenvalues {np.round(pairs.values, 3)!s:<15} {verdict.kind}")
    print(f"{'':<11} {verdict.reason}")

# %% [markdown]
r"""
The origin is a saddle. On the curves $w_1 w_2 = 1$ one eigenvalue is zero, because along its curve the loss stays
zero: these minima are a valley, not a bowl, and the second order alone cannot tell such a minimum from a saddle. So
the verdict is *degenerate*; the loss itself tells, as nothing is less than zero. At the last point the gradient is
not zero.
"""

# %%
wide = np.linspace(-2.5, 2.5, 200)
grid = np.meshgrid(wide, wide)


def draw_surface(axis):
    """The loss over both weights."""
    levels = (0, 0.05, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
    axis.contourf(*grid, notes_loss(grid), levels, cmap="cividis", norm="symlog")
    for sign in (-1, 1):
        branch = np.linspace(0.4, 2.5, 100)
        axis.plot(sign * branch, sign / branch, "w-", linewidth=2, label="minima" if sign > 0 else None)
    axis.plot(0, 0, "X", color="#D55E00", markeredgecolor="black", markersize=11, label="saddle")
    axis.set(xlabel="$w_1$", ylabel="$w_2$", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")


figure, axis = plt.subplots(figsize=(5.4, 4.8), layout="constrained")
draw_surface(axis)
figure.legend(loc="outside lower center", ncols=2, facecolor="0.75")
plt.show()

# %% [markdown]
r"""
## The way out of the saddle

The eigenvector of the negative eigenvalue shows it. The Taylor expansion is right about the direction, and falls for
ever; how far to go, a line search over the loss itself finds.
"""

# %%
pairs = extreme_eigenvalues(origin, SpectrumSettings())
out = escape(origin, pairs, LineSearch())
print("eigenvector", pairs.vectors[0], "of", pairs.values[0])
print(f"from {out.loss_before} to {out.loss_after:.1e}, at", np.asarray(out.params))

steps = np.linspace(-2, 2, 81)
_, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
for value, vector, colour in zip(pairs.values, pairs.vectors, ("#D55E00", "#0072B2"), strict=True):
    along = compare(origin, vector, steps)
    axis.plot(steps, along.losses, "-", color=colour, label=f"loss, eigenvalue {value:.0f}")
    axis.plot(steps, along.expansion, "--", color=colour, label="its Taylor expansion")
axis.set(xlabel="step along the eigenvector", ylabel="loss", ylim=(-1.5, 6))
axis.legend(fontsize="small")
plt.show()

# %% [markdown]
r"""
## Momentum at the saddle

Gradient descent moves by $-\eta g$, and crawls where the gradient is small. Momentum keeps a share $\lambda$ of its
last movement: $m_{t+1} = \lambda m_t - \eta g_t$. Both start close to the ridge that leads to the saddle. On a steady
slope momentum moves $1 / (1 - \lambda) = 10$ times as far, so gradient descent with ten times the rate runs along.
"""

# %%
from jaxfood.lessons.descent import descend, optimizer_settings

runners = {
    "gradient descent": optimizer_settings("sgd", 0.01),
    "gradient descent, 10 x rate": optimizer_settings("sgd", 0.1),
    "momentum": optimizer_settings("momentum", 0.01, "optimizer.momentum=0.9"),
    "Nesterov": optimizer_settings("nesterov", 0.01, "optimizer.momentum=0.9"),
}
colours = dict(zip(runners, ("#0072B2", "#56B4E9", "#D55E00", "#CC79A7"), strict=True))

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
draw_surface(left)
for name, settings in runners.items():
    way = descend(notes_loss, (1.5, -1.499), settings, 600)
    left.plot(*way.points.T, color=colours[name], linewidth=2)
    right.semilogy(way.losses.clip(1e-12), color=colours[name], label=name)
right.set(xlabel="step", ylabel="loss", ylim=(1e-9, 20))
right.grid(alpha=0.3)
right.legend()
plt.show()

# %% [markdown]
r"""
All of them come to the saddle first, where the loss is 1, and all leave it: beside a saddle the distance along the
negative eigenvector grows by the same factor in each step. Momentum leaves many times earlier than gradient descent
with its rate; but so does the larger rate alone. What momentum does and no rate does shows next.

## Momentum in a local minimum

$x^4/4 - x^2/2 - x/5$ has a high valley at $-0.88$ and a low one at $1.09$, with a hill between them.
"""


# %%
def two_valleys(x):
    """A high valley on the left, a low one on the right."""
    return x**4 / 4 - x**2 / 2 - x / 5


x = np.linspace(-2.1, 1.9, 200)
_, axes = plt.subplots(2, 2, figsize=(10, 5.2), sharex=True, sharey=True, layout="constrained")
for axis, (name, settings) in zip(axes.flat, runners.items(), strict=True):
    way = descend(lambda point: two_valleys(point).sum(), (-2.0,), settings, 600).points[:, 0]
    axis.plot(x, two_valleys(x), color="0.6")
    axis.plot(way, two_valleys(way), "o-", color=colours[name], markersize=3, linewidth=0.8)
    axis.plot(way[-1], two_valleys(way[-1]), "*", color="black", markersize=13)
    axis.set_title(f"{name}: ends at {way[-1]:.2f}", fontsize=10)
    axis.set(ylim=(-0.6, 2.6))
plt.show()

# %% [markdown]
r"""
Gradient descent stays in the first valley, at either rate; momentum rolls over the hill. The notes' formula for the
movement, $-\eta (g_t + \lambda g_{t-1} + \lambda^2 g_{t-2} + \dots)$, is what the optimizer does:
"""

# %%
way = descend(lambda point: two_valleys(point).sum(), (-2.0,), runners["momentum"], 5).points[:, 0]
gradients = [float(jax.grad(two_valleys)(position)) for position in way]
for step in range(4):
    by_formula = -0.01 * sum(0.9**back * gradients[step - back] for back in range(step + 1))
    print(f"step {step}: moved {way[step + 1] - way[step]:.6f}, by the formula {by_formula:.6f}")

# %% [markdown]
r"""
## A real network

The same functions for a residual network of 123,227 weights on drawn pictures of food: trained, then asked where it
stands. Its Hessian has 15 billion numbers and is never made. Lanczos' method finds both ends of its spectrum by
products with vectors, each of which costs about two gradients.
"""

# %%
from jaxfood.data.demo import demo_root
from jaxfood.data.splits import load_splits
from jaxfood.runs.directory import load_run, make_workdir

settings = ["data.image_size=32", "model.name=resnet", "model.width=8", f"train.epochs={EPOCHS}"]
config = jaxfood.load_config("demo", ["data.source=folder", f"data.root={demo_root()}", *settings])
workdir = make_workdir("critical-points")
summary = jaxfood.train_and_evaluate(config, workdir)

# %%
from jaxfood.model.networks import to_float
from jaxfood.optim.losses import cross_entropy

model, variables, config = load_run(workdir, "last")
pictures = load_splits(config.data, config.model.num_classes, seed=config.train.seed).train
order = np.random.default_rng(0).permutation(len(pictures))[:PICTURES]
images, labels = to_float(jnp.asarray(pictures.images[order])), jnp.asarray(pictures.labels[order])


def network_loss(params, batch):
    """The sum of the pictures' losses, and how many they are; BatchNorm by its running statistics."""
    logits = model.apply({"params": params, "batch_stats": variables["batch_stats"]}, batch["image"], train=False)
    losses = cross_entropy(logits, batch["label"])
    return losses.sum(), jnp.asarray(losses.size, losses.dtype)


point = Point(Objective(network_loss, [{"image": images, "label": labels}]), variables["params"])
pairs = extreme_eigenvalues(point, SpectrumSettings())
verdict = judge(expand_downhill(point), pairs, Tolerances())
print(f"{point.size:,} parameters, loss {point.loss:.4f}, gradient norm {np.linalg.norm(point.gradient):.4f}")
print(f"smallest eigenvalue {verdict.smallest}, largest {verdict.largest}, by {pairs.products} products")
print(f"{verdict.kind}: {verdict.reason}")

# %% [markdown]
r"""
As the notes say: training mostly stops long before it comes to a critical point. The gradient still promises a
decrease, so that the point is neither a minimum nor a saddle. Its curvature can be seen all the same: the loss along
both extreme eigenvectors, and over the plane of both.
"""

# %%
_, axes = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained")
reach = np.sqrt(2 * point.loss / np.abs(pairs.values))  # where curvature alone would change the loss by itself
shares = np.linspace(-1, 1, 21)
for value, vector, far, colour in zip(pairs.values, pairs.vectors, reach, ("#D55E00", "#0072B2"), strict=True):
    along = compare(point, vector, far * shares)
    axes[0].plot(shares, along.losses, "o-", color=colour, markersize=3, label=f"eigenvalue {value:.3g}")
    axes[0].plot(shares, along.expansion, "--", color=colour, label="its Taylor expansion")
axes[0].set(xlabel="step, as a share of the reach", ylabel="loss", ylim=(0, 4 * point.loss))
axes[0].legend(fontsize="small")
ways = [far * np.linspace(-1, 1, 13) for far in reach]
contours = axes[1].contourf(*ways, loss_slice(point, pairs.vectors, ways).T, 20, cmap="cividis")
axes[1].plot(0, 0, "X", color="#D55E00", markeredgecolor="black", markersize=10)
axes[1].set(xlabel="along the smallest eigenvalue's vector", ylabel="along the largest one's")
axes[1].figure.colorbar(contours, label="loss")
plt.show()

# %% [markdown]
r"""
## Where to go on

- `python -m jaxfood.landscape RUN --images DIR` says the same of any run, with the spectrum's density, sharpness and
  slices, and `--escape NEW_RUN` goes the way out of a saddle.
- `python -m jaxfood.lessons --all` has the notes' other examples, each with its numbers by hand.
"""

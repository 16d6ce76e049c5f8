# %% [markdown]
r"""
# 临界点：局部最小值还是鞍点？

[![在 Colab 中打开](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/jaxfood/blob/main/notebooks/critical_points.zh.ipynb)

loss 不再下降了。这里是无路可走的局部最小值，还是有路可走的鞍点？讲义用 Hessian 矩阵来回答：先看一个只有两个参数的网络，一切都可以手算；在这里，我们还会对一个真正的网络做同样的事。然后是动量（momentum）：它冲得过什么，冲不过什么。

这个 notebook 不需要数据，在两个 CPU 核心上大约要一两分钟。
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
## 讲义里只有两个参数的网络

一个输入 $x = 1$，两个权重前后相连，目标是 $1$，所以 loss 是 $L = (1 - w_1 w_2)^2$。它的梯度是 $-2 (1 - w_1 w_2) (w_2, w_1)$，在原点为零，在所有满足 $w_1 w_2 = 1$ 的点也为零。

`Objective.of` 可以接收任何一个以参数为自变量的函数；`Point` 就是这个函数在某一点的情况。
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
## 看特征值

在临界点附近，$L(\theta + \epsilon v) \approx L(\theta) + \frac{1}{2} \epsilon^2 v^T H v$：沿着正特征值的特征向量，loss 上升；沿着负特征值的特征向量，loss 下降。特征值全为正，就是局部最小值；有正有负，就是鞍点。
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
原点是鞍点。在曲线 $w_1 w_2 = 1$ 上，有一个特征值为零，因为沿着曲线走，loss 一直是零：这些最小值连成一条山谷，而不是一个碗。只看二阶导数，分不清这样的最小值和鞍点，所以判断是 *degenerate*（退化）。不过 loss 本身可以说明问题：没有什么比零更小了。最后那个点的梯度不为零，不是临界点。
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
## 鞍点的出路

负特征值的特征向量指出了方向。泰勒展开给的方向是对的，但它会一直降下去；到底走多远，要沿着这个方向对 loss 本身做线搜索。
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
## 鞍点处的动量

梯度下降每一步移动 $-\eta g$，梯度小的地方就走得很慢。动量法会保留上一次移动的一部分 $\lambda$：$m_{t+1} = \lambda m_t - \eta g_t$。下面几种方法都从紧挨着山脊的一点出发，这条山脊正好通向鞍点。在坡度不变的地方，动量法的步子是梯度下降的 $1 / (1 - \lambda) = 10$ 倍，所以我们也让学习率为十倍的梯度下降一起跑。
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
它们都先来到鞍点附近，那里 loss 是 1；后来也都离开了：在鞍点旁边，沿负特征向量的距离每一步都乘上同一个倍数。动量法离开的时间比学习率相同的梯度下降早得多，不过单单把学习率放大十倍也一样。有一件事却是放大学习率做不到的，请看下面。

## 动量与局部最小值

$x^4/4 - x^2/2 - x/5$ 在 $-0.88$ 有一个较高的谷，在 $1.09$ 有一个较低的谷，中间隔着一座小山。
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
梯度下降停在第一个谷里，两种学习率都一样；动量法却翻过了小山。讲义里移动量的公式 $-\eta (g_t + \lambda g_{t-1} + \lambda^2 g_{t-2} + \dots)$，正是优化器实际走的：
"""

# %%
way = descend(lambda point: two_valleys(point).sum(), (-2.0,), runners["momentum"], 5).points[:, 0]
gradients = [float(jax.grad(two_valleys)(position)) for position in way]
for step in range(4):
    by_formula = -0.01 * sum(0.9**back * gradients[step - back] for back in range(step + 1))
    print(f"step {step}: moved {way[step + 1] - way[step]:.6f}, by the formula {by_formula:.6f}")

# %% [markdown]
r"""
## 一个真正的网络

同样的函数，也可以用在一个有 123,227 个参数的残差网络上。先用画出来的食物图片训练它，再问它停在哪里。它的 Hessian 矩阵有 150 亿个数，不会真的算出来：Lanczos 方法只需要矩阵与向量的乘积，就能求出谱的两端，每次乘积的代价大约是两次梯度。
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
正如讲义所说：训练多半在到达临界点之前很久就停下了。按照梯度，loss 还能再降，所以这里既不是最小值，也不是鞍点。不过它的曲率照样看得见：下面是 loss 沿谱两端的两个特征向量的变化，以及它在这两个方向张成的平面上的样子。
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
## 接下来

- `python -m jaxfood.landscape RUN --images DIR` 对任何一次训练都能给出同样的回答，还有谱密度、尖锐程度和切片；`--escape NEW_RUN` 会沿着鞍点的出路走出去。
- `python -m jaxfood.lessons --all` 会运行讲义里的其他例题，每一题都有手算的数字对照。
"""

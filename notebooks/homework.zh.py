# %% [markdown]
r"""
# 作业，逐格对照

[![在 Colab 中打开](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/jaxfood/blob/main/notebooks/homework.zh.ipynb)

课程的 HW3：十一种食物，一个卷积神经网络，一份 `submission.csv`。PyTorch 的 notebook 你已经熟悉了：这里在每一格前面先说那边做了什么，再用 JAX 做同样的事，结果与 PyTorch 逐数相同。

什么都不用下载：没有 `hw3_data` 时，它会自己画出演示图片，在两个 CPU 核心上大约要三分钟。有 GPU 就会用 GPU。
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
DATA = ""  # the folder hw3_data with train/, valid/ and test/; empty: drawn demo pictures
EPOCHS = 5
SETTINGS = []  # any others, as ["optimizer.learning_rate=1e-3"]

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display

import jaxfood
from jaxfood.cli import set_up_jax
from jaxfood.config.sections import DeviceConfig

set_up_jax(DeviceConfig())  # as the commands do: what is compiled once is kept for the next time
print("jaxfood", jaxfood.__version__, "on", *jax.devices())

# %% [markdown]
r"""
## 设置与随机种子

> **PyTorch**：`torch.manual_seed(6666)`，再加上 NumPy 的种子和 cuDNN 的开关；然后把 `batch_size`、`n_epochs`、`patience` 写成 notebook 里的变量。

在这里，所有设置都放在一个 config 里，填错了会被指出来，训练时还会存进运行目录。种子只是其中的一个数：JAX 没有隐藏的随机状态，初始权重和图片的顺序都只由这个种子决定。
"""

# %%
from jaxfood.data.demo import demo_root

root = Path(DATA) if DATA else demo_root()
if not DATA:
    print("no DATA is set: taking the drawn demo pictures in", root)
settings = ["data.source=folder", f"data.root={root}", f"train.epochs={EPOCHS}", *SETTINGS]
config = jaxfood.load_config("hw3" if DATA else "demo", settings)
print(config.optimizer)
print(config.schedule)
print("batch size", config.train.batch_size, "epochs", config.train.epochs, "seed", config.train.seed)

# %% [markdown]
r"""
## 图片

> **PyTorch**：`transforms.Compose([Resize((128, 128)), ToTensor()])`，一个从文件名 `LABEL_NUMBER.jpg` 里读标签的 `FoodDataset`，再加一个每个 epoch 都把所有图片重新解码一遍的 `DataLoader`。

在这里，每张图片只解码一次就存起来，像素和那边完全一样，一个比特都不差。下面是找到的图片，按类别列出：
"""

# %%
from jaxfood.data.records import class_table
from jaxfood.data.splits import load_splits

splits = load_splits(config.data, config.model.num_classes, seed=config.train.seed)
config = splits.completed(config)  # as many classes as the pictures have
print(*class_table(splits.records, splits.classes), *splits.remarks, sep="\n")


# %%
def show(images, titles, columns=6):
    """Pictures in rows, each below its title."""
    rows = -(-len(images) // columns)
    plt.figure(figsize=(10, 1.95 * rows), layout="constrained")
    for place, (image, title) in enumerate(zip(images, titles, strict=True), start=1):
        plt.subplot(rows, columns, place).set_axis_off()
        plt.imshow(image)
        plt.title(title, fontsize=9)
    plt.show()


some = splits.train.subset(np.linspace(0, len(splits.train) - 1, 12).astype(int))
show(some.images, [splits.classes[label] for label in some.labels])

# %% [markdown]
r"""
## 网络

> **PyTorch**：`class Classifier(nn.Module)`，五组 `Conv2d, BatchNorm2d, ReLU, MaxPool2d`，后面接三个 `Linear`。

层是一样的，初始权重的分布也是一样的。JAX 里的网络是一个纯函数：它的参数，还有 BatchNorm 的统计量，都放在网络外面的一棵数组树里。
"""

# %%
from jaxfood.model.networks import init_variables, make_model

model = make_model(config.model)
variables = init_variables(config)
params = variables["params"]
for path, leaf in jax.tree.leaves_with_path(params):
    print(f"{jax.tree_util.keystr(path, simple=True, separator='.'):<24}{leaf.shape}")
print(f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters")

# %% [markdown]
r"""
## 手动走一步

> **PyTorch**：`loss = criterion(model(imgs), labels)`、`optimizer.zero_grad()`、`loss.backward()`、`clip_grad_norm_(model.parameters(), max_norm=10)`、`optimizer.step()`。

这五步在这里是一个函数。它接收当前的状态，返回下一个状态；第一次调用时要编译，需要几秒钟。下面在同一个 batch 上走八步，loss 应该下降。
"""

# %%
from jaxfood.data.batches import epoch_order

order = epoch_order(config.train.seed, 0, len(splits.train))  # shuffle=True
batch = splits.train.subset(order[: config.train.batch_size])
state = jaxfood.TrainState.create(config, variables, total_steps=8)
for step in range(8):
    state, metrics = jaxfood.train_step(state, {"image": batch.images, "label": batch.labels})
    print(step, {name: round(float(value), 4) for name, value in metrics.items()})

# %% [markdown]
r"""
## 完整的训练

> **PyTorch**：按 epoch 循环：`model.train()`、`tqdm(train_loader)`、`model.eval()`、`torch.no_grad()`，对各个 batch 的准确率取平均，`torch.save(model.state_dict(), "best.ckpt")`，直到 `stale > patience`。

在这里只要调用一次，规则相同。唯一的差别是准确率：它按图片来数，所以最后那个较小的 batch 占的分量也较小。每次训练都有自己的目录。如果你中途停下这一格，训练会先存好；之后用 `train_and_evaluate(config, workdir, resume=True)` 接着训练，就像从未中断过一样。
"""

# %%
from jaxfood.runs.directory import make_workdir

workdir = make_workdir("homework")  # runs/homework-1, or the next free one
summary = jaxfood.train_and_evaluate(config, workdir)

# %% [markdown]
r"""
## 曲线

> **PyTorch**：每个 epoch 打印出来的那几行。

这些数都在运行目录的 `metrics.jsonl` 里。
"""

# %%
from jaxfood.training.logbook import read_metrics

epochs = read_metrics(workdir / "metrics.jsonl")
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for axis, what in zip(axes, ("loss", "accuracy"), strict=True):
    for split, line in (("train", "o--"), ("valid", "s-")):
        axis.plot([e["epoch"] for e in epochs], [e[f"{split}_{what}"] for e in epochs], line, label=split)
    axis.set(xlabel="epoch", ylabel=what, xticks=[e["epoch"] for e in epochs], ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend()
plt.show()

# %% [markdown]
r"""
## 有多好，错在哪里？

> **PyTorch**：notebook 里没有这一步，但报告里会问到。

验证集上的准确率和它的 95 % 置信区间；哪些类别容易混淆；网络错得最有把握的是哪几张图片。
"""

# %%
from jaxfood.evaluation.measure import measure
from jaxfood.evaluation.plots import confusion_plot
from jaxfood.evaluation.sheets import mistakes_sheet

found = measure([workdir], root / config.data.valid)
scores = found.scores
interval = f"{scores.accuracy_low:.1%} to {scores.accuracy_high:.1%}"
print(f"{scores.accuracy:.1%} of {scores.pictures} pictures right, 95 % interval {interval}")
display(confusion_plot(found))
if len(found.confident_mistakes):
    display(mistakes_sheet(found))

# %% [markdown]
r"""
## 提交

> **PyTorch**：`test_loader`、`np.argmax(test_pred.cpu().data.numpy(), axis=1)`，用 `pad4` 给 id 补零，再 `df.to_csv("submission.csv", index=False)`。

图片按文件名的顺序预测，用的是最好的那个 epoch。有的年份要求的 Id 不一样，`ID_FORMS` 里都有。
"""

# %%
from jaxfood.data.index import index_pictures
from jaxfood.inference.submission import make_ids, write_submission

test = index_pictures(root / "test", labelled=False)
probabilities = jaxfood.predict_probabilities([workdir], test)
answers = probabilities.argmax(axis=1)
write_submission(Path("submission.csv"), make_ids(test.paths, "stem"), answers)
print(*Path("submission.csv").read_text(encoding="utf-8").splitlines()[:6], "...", sep="\n")

# %%
from jaxfood.data.decode import decode_picture

few = range(min(12, len(test)))
titles = [f"{splits.classes[answers[row]]} {probabilities[row].max():.0%}" for row in few]
show([decode_picture(test.paths[row], 128) for row in few], titles)

# %% [markdown]
r"""
## 报告：`train_tfm`

> **PyTorch**：用 torchvision 的变换来填 `train_tfm`，例如 `RandomHorizontalFlip`、`RandomRotation`；报告要求至少给出五种不同的输出。

在这里，数据增强是几个设置，变换在计算设备上进行。下面是同一张图片在十一个 epoch 里的样子：
"""

# %%
from jaxfood.before_training.survey import preview

changed = ["augment.flip=true", "augment.rotation=15", "augment.resized_crop=0.5", "augment.brightness=0.2"]
preview(jaxfood.load_config(workdir / "config.toml", changed), workdir / "preview", find_lr=False)
display(Image(workdir / "preview" / "one_picture.png", alt="One picture, and eleven changed forms of it"))

# %% [markdown]
r"""
## 报告：各层能分辨出什么

> **PyTorch**：前向计算到中间某一层和最后一层，再用 scikit-learn 的 `TSNE` 画两张图。

先看第一层的滤波器，以及中间某一层的滤波器在找什么。然后是那两张图：每个点是一张验证图片，颜色和形状表示类别。在中间层，有些类别还混在一起；到了最后一个隐藏层，凡是网络学会了的类别就分开了。
"""

# %%
from jaxfood.evaluation.explanations.layer_figures import draw_layers
from jaxfood.runs.directory import load_run

model, variables, config = load_run(workdir)  # the best epoch
plain = model.clone(fused=False)  # layer by layer
display(*draw_layers(plain, variables, splits.valid, splits.classes))

# %% [markdown]
r"""
## 回到 PyTorch

> **PyTorch**：`model.load_state_dict(torch.load("best.ckpt"))`

把训练好的权重写成一个文件，讲义的 `Classifier` 可以直接读取。装了 PyTorch 可以写成 `best.ckpt`，没装也可以写成 `best.safetensors`。让 PyTorch 的网络看同样的图片，会得到同样的 logits。
"""

# %%
jaxfood.to_torch(variables, workdir / "best.safetensors")
print(workdir / "best.safetensors", f"{(workdir / 'best.safetensors').stat().st_size / 2**20:.0f} MiB")

# %% [markdown]
r"""
## 接下来

- 用你自己的 `hw3_data`：在上面设置 `DATA`。`python -m jaxfood.food11` 可以把从 Kaggle 下载的压缩包整理成它。
- 想要更高的分数：训练更多的 epoch，在 `SETTINGS` 里加上 `augment.flip=true`、`augment.trivial=true`、`model.name=resnet`。每一项能提高多少，文档里《从 simple 到 boss》那一页有实测的数据。
- 训练停下的地方是局部最小值还是鞍点？请看《临界点》那个 notebook。
"""

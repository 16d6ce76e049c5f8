# %% [markdown]
r"""
# 用你自己的文件夹

[![在 Colab 中打开](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/jaxfood/blob/main/notebooks/your_folder.zh.ipynb)

从一个照片文件夹（每个类别一个子文件夹）开始，训练出一个分类器：它会说出新照片里是什么，也会说明它为什么这样想。拍的是不是食物都行，有两个类别就够了。

没有你的文件夹时，它会用自己画的演示图片，在两个 CPU 核心上大约要两分钟。有 GPU 就会用 GPU。
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
FOLDER = ""  # your folder, or an archive of it (.zip, .tar.gz); empty: drawn demo pictures
UPLOAD = False  # in Colab: True asks for an archive from your machine
IMAGE_SIZE = 64  # pixels, a multiple of 32; twice the side takes four times as long
EPOCHS = 8
SETTINGS = []  # any others, as ["optimizer.learning_rate=1e-3", "data.resize=crop"]

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
## 图片

```text
photos/
  train/Bread/IMG_0001.jpg   train/Egg/...   train/Soup/...
  valid/Bread/...            valid/Egg/...   valid/Soup/...
```

可以没有 `valid`：那就从每个类别里留出一部分来验证。也可以没有 `train`：那么这个文件夹里的子文件夹就是各个类别。在 Jupyter 里，请把文件夹或它的压缩包放在 notebook 旁边；在 Colab 里，请把 `UPLOAD` 设为 `True`。
"""

# %%
from jaxfood.data.demo import demo_root

if UPLOAD and not FOLDER:
    from google.colab import files  # only Colab has it

    FOLDER = next(iter(files.upload()), "")
if not FOLDER:
    root = demo_root()
    print("no FOLDER is set: taking the drawn demo pictures in", root)
elif Path(FOLDER).is_file():
    root = Path("pictures") / Path(FOLDER).name.partition(".")[0]
    shutil.unpack_archive(FOLDER, root)
    while len(inside := [path for path in root.iterdir() if path.name[0] not in "._"]) == 1 and inside[0].is_dir():
        root = inside[0]  # archives often hold one folder that holds everything
    print(FOLDER, "is unpacked; its pictures are in", root)
else:
    root = Path(FOLDER)

# %% [markdown]
r"""
## 能用吗？

有哪些类别，每个类别多少张，跳过了什么，图片能不能读。哪里不对，提示会告诉你，也会告诉你怎么改。
"""

# %%
from jaxfood.diagnosis.folder import describe_folder, find_layout

print(*describe_folder(root), sep="\n")

# %% [markdown]
r"""
## 设置

一个小的残差网络，再加上数据增强，这样每个 epoch 看到的图片都会稍有不同。
"""

# %%
layout = find_layout(root)
where = ["data.source=folder", f"data.root={root}", f"data.train={layout.train}"]
where += [f"data.valid={layout.valid}"] if layout.valid else ["data.valid_fraction=0.2"]
recipe = ["model.name=resnet", "model.width=16", "augment.flip=true", "augment.resized_crop=0.5"]
recipe += ["train.batch_size=32", "optimizer.learning_rate=2e-3", "schedule.name=warmup_cosine"]
sizes = [f"data.image_size={IMAGE_SIZE}", f"train.epochs={EPOCHS}"]
config = jaxfood.load_config(None, [*where, *recipe, *sizes, *SETTINGS])

# %% [markdown]
r"""
## 网络看到的样子

每张图片上面是它的类别；图片已经变成正方形，并做了随机变换。这样*你*还认得出是什么吗？认不出的话，请改 `data.resize` 或 `augment`。
"""

# %%
from jaxfood.before_training.survey import preview
from jaxfood.runs.directory import make_workdir

workdir = make_workdir("folder")  # runs/folder-1, or the next free one
look = workdir.with_name(f"{workdir.name}-preview")
preview(config, look, find_lr=False)
display(Image(look / "many_pictures.png", alt="Training pictures as the network will see them, each below its class"))

# %% [markdown]
r"""
## 训练

你可以随时停下这一格：训练会先存好，之后用 `train_and_evaluate(config, workdir, resume=True)` 接着训练。
"""

# %%
summary = jaxfood.train_and_evaluate(config, workdir)

# %%
from jaxfood.training.logbook import read_metrics

epochs = read_metrics(workdir / "metrics.jsonl")
_, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for axis, what in zip(axes, ("loss", "accuracy"), strict=True):
    for split, line in (("train", "o--"), ("valid", "s-")):
        axis.plot([e["epoch"] for e in epochs], [e[f"{split}_{what}"] for e in epochs], line, label=split)
    axis.set(xlabel="epoch", ylabel=what, xticks=[e["epoch"] for e in epochs], ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend()
plt.show()

# %% [markdown]
r"""
两条 loss 都还在下降：那就多训练一会儿。训练的 loss 下降，验证的 loss 却上升：那就需要更多图片，或者更强的 `augment`。

## 有多好，错在哪里？

哪些类别容易混淆；网络错得最有把握的是哪几张。标错的图片往往就在其中。
"""

# %%
import csv

from jaxfood.data.splits import load_splits
from jaxfood.evaluation.measure import measure
from jaxfood.evaluation.plots import confusion_plot
from jaxfood.evaluation.sheets import mistakes_sheet, uncertain_sheet

valid = load_splits(config.data, seed=config.train.seed).valid  # those that the training kept for validation
classes = (workdir / "classes.txt").read_text(encoding="utf-8").splitlines()
with (look / "valid.csv").open("w", newline="", encoding="utf-8") as file:
    rows = [(path, classes[label]) for path, label in zip(valid.paths, valid.labels, strict=True)]
    csv.writer(file).writerows([("path", "label"), *rows])

found = measure([workdir], look / "valid.csv")
scores = found.scores
interval = f"{scores.accuracy_low:.1%} to {scores.accuracy_high:.1%}"
print(f"{scores.accuracy:.1%} of {scores.pictures} pictures right, 95 % interval {interval}")
display(confusion_plot(found))
display(mistakes_sheet(found) if len(found.confident_mistakes) else uncertain_sheet(found))

# %% [markdown]
r"""
## 它为什么这样想？

先看它最没有把握的三张图片，它的回答依据的是哪里；再看网络学到了什么：第一层的滤波器，后面的滤波器在找什么，以及两个层怎样摆放这些图片，相似的会挨在一起。
"""

# %%
from jaxfood.evaluation.explanations import explain

display(*explain([workdir], found.index, found.least_certain[:3]))

# %% [markdown]
r"""
## 问问它

把 `PICTURE` 设成你的任何一张图片，再运行一次这一格。
"""

# %%
from PIL import Image as Picture

PICTURE = ""  # a file; empty: one of the validation pictures
picture = Path(PICTURE) if PICTURE else valid.paths[0]
probabilities = jaxfood.predict_probabilities([workdir], picture)[0]
best = np.argsort(probabilities)[::-1][:5]

_, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8), layout="constrained")
left.imshow(Picture.open(picture).convert("RGB"))
left.set_axis_off()
left.set_title(picture.name, fontsize=9)
right.barh([classes[label] for label in best], probabilities[best])
right.invert_yaxis()
right.set(xlim=(0, 1), xlabel="probability")
plt.show()

# %% [markdown]
r"""
## 留下它

一次训练就是一个文件夹。`python -m jaxfood.predict RUN --images DIR` 用它来回答整个文件夹的图片；`python -m jaxfood.serve RUN` 把它变成浏览器里的一个网页；`python -m jaxfood.export RUN FILE.onnx` 把它变成一个文件，给别的程序用。在 Colab 里，会话一结束它就没了，除非你把它下载下来：
"""

# %%
archive = shutil.make_archive(str(workdir), "zip", workdir)
print(archive, f"{Path(archive).stat().st_size / 2**20:.1f} MiB")
if UPLOAD:
    files.download(archive)

# %% [markdown]
r"""
# Bring your own folder

[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/jaxfood/blob/main/notebooks/your_folder.ipynb)

From a folder of photographs, one folder inside it for each class, to a classifier that says what is on a new one, and
why it thinks so. Food or not; two classes are enough.

Without a folder of yours the notebook takes drawn demo pictures, and about two minutes on two CPU cores. A GPU is
used where there is one.
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
## The pictures

```text
photos/
  train/Bread/IMG_0001.jpg   train/Egg/...   train/Soup/...
  valid/Bread/...            valid/Egg/...   valid/Soup/...
```

`valid` may be missing: then a part of each class is kept for validation. So may `train`: then the folder's own
folders are the classes. In Jupyter put the folder, or an archive of it, beside the notebook; in Colab set `UPLOAD`.
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
## Is it usable?

The classes and how many pictures each has, what is passed over, and whether the pictures can be read. Something is
wrong? The message says what, and how to mend it.
"""

# %%
from jaxfood.diagnosis.folder import describe_folder, find_layout

print(*describe_folder(root), sep="\n")

# %% [markdown]
r"""
## Settings

A small residual network, and changes of the pictures, so that it sees each a little differently in every epoch.
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
## As the network will see them

Each with its class, squared and changed. Can *you* still tell what it is? If not, change `data.resize` or `augment`.
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
## Train

You may stop the cell: the run is saved, and `train_and_evaluate(config, workdir, resume=True)` goes on.
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
Both losses still fall: train longer. The training loss falls and the validation loss rises: more pictures, or
stronger `augment`.

## How good is it, and where is it wrong?

Which classes are taken for which, and the mistakes that the network is surest of: wrong labels are often among them.
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
## Why does it think so?

What the answer rests on, for the three least certain pictures; then what the network has learnt: its first filters,
what later ones look for, and the pictures as two of its layers place them, alike beside alike.
"""

# %%
from jaxfood.evaluation.explanations import explain

display(*explain([workdir], found.index, found.least_certain[:3]))

# %% [markdown]
r"""
## Ask it

Set `PICTURE` to any picture of yours and run the cell again.
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
## Keep it

The run is a folder. `python -m jaxfood.predict RUN --images DIR` answers a whole folder with it, `python -m
jaxfood.serve RUN` shows it as a page in the browser, and `python -m jaxfood.export RUN FILE.onnx` makes it one file
for other programs. In Colab it is gone with the session, unless you download it:
"""

# %%
archive = shutil.make_archive(str(workdir), "zip", workdir)
print(archive, f"{Path(archive).stat().st_size / 2**20:.1f} MiB")
if UPLOAD:
    files.download(archive)

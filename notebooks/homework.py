# %% [markdown]
r"""
# The homework, cell by cell

[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/jaxfood/blob/main/notebooks/homework.ipynb)

HW3 of the course: eleven kinds of food, a convolutional network, a `submission.csv`. You know the PyTorch notebook:
before each cell stands what it does there, and the cell does the same in JAX, equal to PyTorch number by number.

Nothing needs to be downloaded: without `hw3_data` the notebook draws demo pictures, and takes about three minutes on
two CPU cores. A GPU is used where there is one.
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
## Settings and seed

> **PyTorch**: `torch.manual_seed(6666)`, NumPy's seed and cuDNN's switches; then `batch_size`, `n_epochs`, `patience`
> as variables of the notebook.

One configuration holds them all, checked, and the run keeps it. The seed is a number in it: JAX has no hidden random
state, so that the first weights and the order of the pictures are functions of the seed and nothing else.
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
## Pictures

> **PyTorch**: `transforms.Compose([Resize((128, 128)), ToTensor()])`, a `FoodDataset` that takes the label from the
> name `LABEL_NUMBER.jpg`, and a `DataLoader` that decodes every picture again in every epoch.

Here they are decoded once, by the same rule to the bit, and kept. What was found, class by class:
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
## The network

> **PyTorch**: `class Classifier(nn.Module)`, five times `Conv2d, BatchNorm2d, ReLU, MaxPool2d`, then three `Linear`.

The same layers, and first weights from the same distributions. In JAX the network is a pure function: its parameters,
and the statistics of BatchNorm, are a tree of arrays outside of it.
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
## One step by hand

> **PyTorch**: `loss = criterion(model(imgs), labels)`, `optimizer.zero_grad()`, `loss.backward()`,
> `clip_grad_norm_(model.parameters(), max_norm=10)`, `optimizer.step()`.

One function does all five. It takes the state, gives the next one, and is compiled at its first call, which takes
seconds. Eight steps on one and the same batch: the loss must fall.
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
## The whole training

> **PyTorch**: the loop over epochs: `model.train()`, `tqdm(train_loader)`, `model.eval()`, `torch.no_grad()`, means
> of the batches' accuracies, `torch.save(model.state_dict(), "best.ckpt")`, and the end once `stale > patience`.

One call, with the same rules, but for the accuracy: it is counted over pictures, so that a smaller last batch weighs
less. The run stands in a folder of its own. If you stop the cell, the run is saved, and `train_and_evaluate(config,
workdir, resume=True)` goes on as if nothing had happened.
"""

# %%
from jaxfood.runs.directory import make_workdir

workdir = make_workdir("homework")  # runs/homework-1, or the next free one
summary = jaxfood.train_and_evaluate(config, workdir)

# %% [markdown]
r"""
## Curves

> **PyTorch**: the printed lines of each epoch.

The run's `metrics.jsonl` has every number of them.
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
## How good is it, and where is it wrong?

> **PyTorch**: not in the notebook; the report asks for it.

The accuracy on the validation pictures with its 95 % interval; which classes are taken for which; the mistakes that
the network is surest of.
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
## The submission

> **PyTorch**: `test_loader`, `np.argmax(test_pred.cpu().data.numpy(), axis=1)`, ids padded by `pad4`, and
> `df.to_csv("submission.csv", index=False)`.

Pictures are answered in the order of their names, by the best epoch. Other years want other Ids: `ID_FORMS` has them.
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
## The report: `train_tfm`

> **PyTorch**: `train_tfm`, to be filled with torchvision's transforms: `RandomHorizontalFlip`, `RandomRotation`, ...;
> the report asks for at least five different outputs.

Changes are settings here, and made on the device. This is one picture as the network would see it in eleven epochs:
"""

# %%
from jaxfood.before_training.survey import preview

changed = ["augment.flip=true", "augment.rotation=15", "augment.resized_crop=0.5", "augment.brightness=0.2"]
preview(jaxfood.load_config(workdir / "config.toml", changed), workdir / "preview", find_lr=False)
display(Image(workdir / "preview" / "one_picture.png", alt="One picture, and eleven changed forms of it"))

# %% [markdown]
r"""
## The report: what the layers tell apart

> **PyTorch**: forward to a middle layer and to the last one, then scikit-learn's `TSNE`, two figures.

First the filters of the first layer, and what filters of a middle one look for. Then the two figures: a point is a
validation picture, its colour and mark the class. In the middle layer some classes still lie among each other; in the
last hidden one they are apart, as far as the network knows them.
"""

# %%
from jaxfood.evaluation.explanations.layer_figures import draw_layers
from jaxfood.runs.directory import load_run

model, variables, config = load_run(workdir)  # the best epoch
plain = model.clone(fused=False)  # layer by layer
display(*draw_layers(plain, variables, splits.valid, splits.classes))

# %% [markdown]
r"""
## Back to PyTorch

> **PyTorch**: `model.load_state_dict(torch.load("best.ckpt"))`

The trained weights as a file that the notes' `Classifier` loads: with PyTorch installed as `best.ckpt`, without it as
`best.safetensors`. Ask PyTorch's network for the same pictures, and it gives the same logits.
"""

# %%
jaxfood.to_torch(variables, workdir / "best.safetensors")
print(workdir / "best.safetensors", f"{(workdir / 'best.safetensors').stat().st_size / 2**20:.0f} MiB")

# %% [markdown]
r"""
## Where to go on

- Your `hw3_data`: set `DATA` above. `python -m jaxfood.food11` makes it of what Kaggle gave you.
- A better score: more epochs, `augment.flip=true` and `augment.trivial=true` in `SETTINGS`, `model.name=resnet`; the
  page *From simple to boss* of the documentation has what each of them gives.
- Is it a minimum or a saddle where the training stopped? The notebook *Critical points*.
"""

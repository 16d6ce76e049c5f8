"""Draws the README's pictures from drawn demo pictures alone: docs/pictures/.

    python scripts/docs/readme_pictures.py             # trains, evaluates and surveys a run first: minutes
    python scripts/docs/readme_pictures.py --run RUN   # of a run of the demo that has its evaluation and landscape

`equal.png` shows the table of docs/background/measured.md. The commands are the README's own, so that whoever runs them
gets these pictures.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from site_lessons import with_palette

from jaxfood import evaluate, train
from jaxfood.data.demo import demo_root
from jaxfood.landscape import __main__ as landscape
from jaxfood.report.page import COLOURS, plot_style

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"
SETTINGS = ("--config", "demo", "--model.name", "resnet", "--model.width", "16", "--train.epochs", "5")
SAMPLES = "16"
WIDEST = 1100  # pixels


def make_run(run: Path) -> None:
    """A run of the demo with its evaluation and landscape."""
    train.main([*SETTINGS, "--workdir", str(run)])
    root = demo_root()
    evaluate.main([str(run), "--images", str(root / "valid")])
    landscape.main([str(run), "--images", str(root / "train"), "--samples", SAMPLES])


def draw_run(run: Path) -> Figure:
    """Training curves and the confusion matrix of a run, side by side, and the loss around it if it was surveyed."""
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    evaluation = json.loads(next(run.glob("evaluation/*/evaluation.json")).read_text("utf-8"))
    survey = run / "landscape" / "landscape.json"
    panels = 2 + survey.exists()
    figure = Figure(figsize=(4.4 * panels, 4), layout="constrained")
    grid = figure.add_gridspec(1, panels, width_ratios=(1, 1.1, 1.1)[:panels])
    _draw_curves(figure.add_subplot(grid[0]), epochs)
    _draw_confusion(figure.add_subplot(grid[1]), evaluation)
    if survey.exists():
        _draw_surface(figure.add_subplot(grid[2], projection="3d"), json.loads(survey.read_text("utf-8")))
    return figure


def draw_equal(page: str) -> Figure:
    """How far from PyTorch, and how far the test allows: the rows of the first table of docs/background/measured.md."""
    table = page.partition("## Equal to PyTorch")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| (\d\S*) \|$", table, re.M)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axis = figure.subplots()
    least = 1e-17
    for place, (_, found, allowed) in enumerate(reversed(rows)):
        value = max(max(map(float, re.findall(r"[\d.]+(?:e-\d+)?", found))), least)
        axis.plot((value, float(allowed)), (place, place), color="0.8", ls="-", zorder=0)
        axis.plot(value, place, "o", color=COLOURS[0], label="measured" if not place else None)
        label = "the test allows" if not place else None
        axis.plot(float(allowed), place, "|", color=COLOURS[1], ms=14, mew=2, label=label)
    axis.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)])
    axis.set_xscale("log")
    axis.set(xlabel="difference from PyTorch (0 stands at 1e-17)", xlim=(least / 2, 1e-2))
    axis.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.4, 1))
    return figure


def _draw_curves(axis: Any, epochs: list[dict[str, Any]]) -> None:
    numbers = [epoch["epoch"] for epoch in epochs]
    for split in ("train", "valid"):
        axis.plot(numbers, [epoch[f"{split}_accuracy"] for epoch in epochs], marker="o", label=split)
    axis.set(xlabel="epoch", ylabel="accuracy", xticks=numbers, ylim=(0, 1.02), title="it learns")
    axis.legend(loc="lower right")


def _draw_confusion(axis: Any, evaluation: dict[str, Any]) -> None:
    counts = np.array(evaluation["confusion"])
    names = [of_class["name"] for of_class in evaluation["classes"]]
    axis.imshow(counts / counts.sum(axis=1, keepdims=True), cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        dark = counts[row, column] > counts[row].sum() / 2
        axis.text(column, row, counts[row, column], ha="center", va="center", fontsize=7, color="w" if dark else "k")
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set_xticks(range(len(names)), names, fontsize=7, rotation=90)
    axis.grid(visible=False)
    axis.set(ylabel="truth", xlabel="answer", title="which dish is taken for which")


def _draw_surface(axis: Any, surveyed: dict[str, Any]) -> None:
    plane = surveyed["plane"]
    steps, others = np.meshgrid(plane["steps"], plane["other_steps"], indexing="ij")
    losses = np.array(plane["losses"], float)
    axis.plot_surface(steps, others, losses, cmap="cividis", rstride=1, cstride=1, edgecolor="k", linewidth=0.15)
    axis.scatter(0, 0, surveyed["loss"], color=COLOURS[1], s=40, depthshade=False, zorder=9)
    axis.view_init(elev=28, azim=-58)
    axis.tick_params(labelsize=7, pad=1)
    axis.locator_params(nbins=3)
    axis.set(title=f"where it stands: {surveyed['verdict'].replace('_', ' ')}")
    axis.set_xlabel("largest curvature", fontsize=8, labelpad=-2)
    axis.set_ylabel("smallest curvature", fontsize=8, labelpad=-2)
    axis.set_zlabel("loss", fontsize=8, labelpad=1)


def _save(figure: Figure, name: str) -> None:
    with tempfile.TemporaryFile() as file:
        figure.savefig(file, dpi=110)
        _keep(file, name)


def _keep(file: Any, name: str) -> None:
    """A picture as the README has it: no wider than it is shown there, in few colours."""
    with Image.open(file) as image:
        height = round(image.height * min(1, WIDEST / image.width))
        small = image.convert("RGB").resize((min(image.width, WIDEST), height), Image.Resampling.LANCZOS)
        with_palette(small).save(PICTURES / name, optimize=True)


def main() -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", metavar="RUN", type=Path, help="a finished run of the demo")
    run = parser.parse_args().run
    with tempfile.TemporaryDirectory() as folder, matplotlib.rc_context(plot_style()):
        if run is None:
            run = Path(folder) / "demo"
            make_run(run)
        _save(draw_run(run), "demo_run.png")
        _keep(next(run.glob("evaluation/*/mistakes.png")), "evaluate_mistakes.png")
        _save(draw_equal((ROOT / "docs/background/measured.md").read_text("utf-8")), "equal.png")


if __name__ == "__main__":
    main()

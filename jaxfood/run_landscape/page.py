"""The page of a survey: tables and pictures of where a run stands."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxfood.report.page import Page
from jaxfood.run_landscape.standing import Standing
from jaxfood.run_landscape.survey import Surroundings, numbers


def tell_point(page: Page, name: str, found: Standing, around: Surroundings) -> dict[str, Any]:
    """One checkpoint: the verdict in words, its numbers, the spectrum and the slices. Returns the numbers."""
    verdict = found.verdict
    page.text(f"**{name}: {verdict.kind.replace('_', ' ')}.** {_sentence(verdict.reason)}")
    page.text(f"What would change that: {verdict.remedy}.")
    if not found.pairs.settled:
        page.text(f"{found.pairs.products} products did not settle the eigenvalues: raise `landscape.max_products`.")
    low, high = (f"{bound:.3g}" for bound in (around.positive.low, around.positive.high))
    page.table(
        ("", "value", "known to"),
        (
            ("loss", verdict.downhill.loss, ""),
            ("gradient norm", found.gradient_norm, ""),
            ("decrease that the second order promises along -g", verdict.downhill.decrease, ""),
            ("largest eigenvalue", verdict.largest.value, f"± {verdict.largest.residual:.1g}"),
            ("smallest eigenvalue", verdict.smallest.value, f"± {verdict.smallest.residual:.1g}"),
            ("an eigenvalue counts as zero up to", verdict.threshold, ""),
            ("trace", around.trace.value, f"± {around.trace.standard_error:.1g}"),
            ("minimum ratio, the share of positive eigenvalues", around.positive.value, f"{low} to {high}"),
            (f"worst rise within {around.sharpness.radius}", around.sharpness.rise, "at least"),
        ),
    )
    _draw_spectrum(page, found, around)
    _draw_lines(page, found, around)
    _draw_plane(page, around)
    return numbers(found) | {
        "trace": around.trace._asdict(),
        "minimum_ratio": around.positive._asdict(),
        "sharpness": {
            "radius": around.sharpness.radius,
            "rise": around.sharpness.rise,
            "rise_by_second_order": around.sharpness.model_rise,
        },
        "density": {"nodes": around.density.nodes, "weights": around.density.weights},
        "lines": {name: {"steps": steps, "losses": losses} for name, (steps, losses) in around.lines.items()},
        "plane": dict(zip(("steps", "other_steps", "losses"), around.plane, strict=True)),
    }


def tell_path(page: Page, steps: Sequence[int], standings: Sequence[Standing]) -> dict[str, Any]:
    """Every checkpoint of a run: how loss, gradient and both ends of the spectrum went.

    Returns the numbers: the last checkpoint's, and all of them under `path`.
    """
    rows = [numbers(found) for found in standings]
    columns = ("verdict", "loss", "gradient_norm", "largest_eigenvalue", "smallest_eigenvalue")
    page.table(
        ("step", *(name.replace("_", " ") for name in columns)),
        ((step, *(row[name] for name in columns)) for step, row in zip(steps, rows, strict=True)),
    )
    with page.figure("path", "Loss, gradient and eigenvalues at every checkpoint", size=(10, 3.5)) as figure:
        axes = figure.subplots(1, 3)
        for axis, names in zip(axes, (columns[1:2], columns[2:3], columns[3:]), strict=True):
            for name in names:
                axis.plot(steps, [row[name] for row in rows], marker="o", label=name.replace("_", " "))
            axis.set_xlabel("step")
            axis.set_xticks(steps)
            axis.legend()
        axes[2].axhline(0, color="0.3", linewidth=0.8)
    return rows[-1] | {"path": [{"step": step} | row for step, row in zip(steps, rows, strict=True)]}


def _draw_spectrum(page: Page, found: Standing, around: Surroundings) -> None:
    caption = "Density of the Hessian's eigenvalues, smoothed; the lines are the smallest and the largest found"
    with page.figure("spectrum", caption) as figure:
        axis = figure.subplots()
        ends = found.pairs.values[[0, -1]]
        width = max(float(np.ptp(ends)), 1e-12)
        grid = np.linspace(ends[0] - 0.1 * width, ends[1] + 0.1 * width, 800)
        axis.semilogy(grid, np.maximum(around.density.curve(grid, width / 100), 1e-12))
        for end in ends:
            axis.axvline(end, color="#D55E00", linestyle="--")
        axis.axvline(0, color="0.3", linestyle="-", linewidth=0.8)
        axis.set_ylim(bottom=1e-8 / width)
        axis.set_xlabel("eigenvalue")
        axis.set_ylabel("density")


def _draw_lines(page: Page, found: Standing, around: Surroundings) -> None:
    caption = "The loss along three lines through the point, each in units of its own reach"
    with page.figure("lines", caption) as figure:
        axis = figure.subplots()
        for name, (steps, losses) in around.lines.items():
            axis.plot(steps / steps[-1], losses, label=f"{name} (reach {steps[-1]:.2g})")
        axis.plot(0, found.verdict.downhill.loss, "o", color="black")
        axis.set_xlabel("step, as a share of the reach")
        axis.set_ylabel("loss")
        axis.legend()


def _draw_plane(page: Page, around: Surroundings) -> None:
    caption = "The loss over the plane of the two extreme eigenvectors; the point is in the middle"
    first, last, losses = around.plane
    with page.figure("plane", caption, size=(6.5, 5)) as figure:
        axis = figure.subplots()
        filled = axis.contourf(first, last, np.where(np.isfinite(losses), losses, np.nan).T, levels=20, cmap="cividis")
        axis.plot(0, 0, "o", color="white", markeredgecolor="black")
        axis.set_xlabel("along the largest eigenvalue's vector")
        axis.set_ylabel("along the smallest eigenvalue's vector")
        axis.grid(visible=False)
        figure.colorbar(filled, label="loss")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."

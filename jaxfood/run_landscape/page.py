"""The page of a run's landscape: its text, tables and pictures, and the keys of landscape.json."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxfood.report.page import COLOURS, Page
from jaxfood.run_landscape.measure import LocalGeometry, PointReport
from jaxfood.run_landscape.more_page import write_top


def write_checkpoint(page: Page, name: str, report: PointReport, geometry: LocalGeometry) -> dict[str, Any]:
    """One checkpoint: the verdict in words, its numbers, the spectrum and the slices.

    Returns:
        The numbers for landscape.json.
    """
    verdict, pairs, sharpness = report.verdict, report.pairs, geometry.sharpness
    page.text(f"**{name}: {verdict.kind.replace('_', ' ')}.** {_sentence(verdict.reason)}")
    page.text(f"What would change that: {verdict.remedy}.")
    if not pairs.settled:
        page.text(f"{pairs.products} products did not settle the eigenvalues: raise `landscape.max_products`.")
    low, high = (f"{bound:.3g}" for bound in (geometry.minimum_ratio.low, geometry.minimum_ratio.high))
    page.table(
        ("", "value", "known to"),
        (
            ("loss", verdict.downhill.loss, ""),
            ("gradient norm", report.gradient_norm, ""),
            ("decrease that the second order promises along -g", verdict.downhill.decrease, ""),
            ("largest eigenvalue", verdict.largest.value, f"± {verdict.largest.residual:.1g}"),
            ("smallest eigenvalue", verdict.smallest.value, f"± {verdict.smallest.residual:.1g}"),
            ("an eigenvalue counts as zero up to", verdict.threshold, ""),
            ("trace", geometry.trace.value, f"± {geometry.trace.standard_error:.1g}"),
            ("minimum ratio, the share of positive eigenvalues", geometry.minimum_ratio.value, f"{low} to {high}"),
            (f"worst rise within {sharpness.radius}", sharpness.rise, "at least"),
        ),
    )
    top = {} if report.top is None else write_top(page, report.top)
    _draw_spectrum(page, report, geometry)
    _draw_lines(page, report, geometry)
    _draw_plane(page, geometry)
    return (
        _numbers(report)
        | top
        | {
            "trace": geometry.trace._asdict(),
            "minimum_ratio": geometry.minimum_ratio._asdict(),
            "sharpness": {
                "radius": sharpness.radius,
                "rise": sharpness.rise,
                "rise_by_second_order": sharpness.model_rise,
            },
            "density": {"nodes": geometry.density.nodes, "weights": geometry.density.weights},
            "lines": {name: {"steps": steps, "losses": losses} for name, (steps, losses) in geometry.lines.items()},
            "plane": dict(zip(("steps", "other_steps", "losses"), geometry.plane, strict=True)),
        }
    )


def write_path(page: Page, steps: Sequence[int], reports: Sequence[PointReport]) -> dict[str, Any]:
    """Every checkpoint of a run: how loss, gradient and both ends of the spectrum went.

    Returns:
        The numbers for landscape.json: the last checkpoint's, and all of them under `path`.
    """
    rows = [_numbers(report) for report in reports]
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
            axis.set(xlabel="step", xticks=steps)
            axis.legend()
        axes[2].axhline(0, color="0.3", linewidth=0.8)
    return rows[-1] | {"path": [{"step": step} | row for step, row in zip(steps, rows, strict=True)]}


def _numbers(report: PointReport) -> dict[str, Any]:
    """The verdict's plain numbers, as landscape.json has them."""
    verdict = report.verdict
    return {
        "verdict": str(verdict.kind),
        "reason": verdict.reason,
        "remedy": verdict.remedy,
        "loss": verdict.downhill.loss,
        "gradient_norm": report.gradient_norm,
        "curvature_along_gradient": verdict.downhill.curvature,
        "promised_decrease": verdict.downhill.decrease,
        "largest_eigenvalue": verdict.largest.value,
        "largest_residual": verdict.largest.residual,
        "smallest_eigenvalue": verdict.smallest.value,
        "smallest_residual": verdict.smallest.residual,
        "tolerance": verdict.threshold,
        "unseen": verdict.unseen,
        "settled": report.pairs.settled,
        "products": report.pairs.products,
    }


def _draw_spectrum(page: Page, report: PointReport, geometry: LocalGeometry) -> None:
    caption = "Density of the Hessian's eigenvalues, smoothed; the lines are the smallest and the largest found"
    with page.figure("spectrum", caption) as figure:
        axis = figure.subplots()
        ends = report.pairs.values[[0, -1]]
        width = max(float(np.ptp(ends)), 1e-12)
        grid = np.linspace(ends[0] - 0.1 * width, ends[1] + 0.1 * width, 800)
        axis.semilogy(grid, np.maximum(geometry.density.curve(grid, width / 100), 1e-12))
        for end in ends:
            axis.axvline(end, color=COLOURS[1], linestyle="--")
        axis.axvline(0, color="0.3", linestyle="-", linewidth=0.8)
        axis.set(xlabel="eigenvalue", ylabel="density", ylim=(1e-8 / width, None))


def _draw_lines(page: Page, report: PointReport, geometry: LocalGeometry) -> None:
    caption = "The loss along three lines through the point, each in units of its own reach"
    with page.figure("lines", caption) as figure:
        axis = figure.subplots()
        for name, (steps, losses) in geometry.lines.items():
            axis.plot(steps / steps[-1], losses, label=f"{name} (reach {steps[-1]:.2g})")
        axis.plot(0, report.verdict.downhill.loss, "o", color="black")
        axis.set(xlabel="step, as a share of the reach", ylabel="loss")
        axis.legend()


def _draw_plane(page: Page, geometry: LocalGeometry) -> None:
    caption = "The loss over the plane of the two extreme eigenvectors; the point is in the middle"
    first, last, losses = geometry.plane
    with page.figure("plane", caption, size=(6.5, 5)) as figure:
        axis = figure.subplots()
        filled = axis.contourf(first, last, np.where(np.isfinite(losses), losses, np.nan).T, levels=20, cmap="cividis")
        axis.plot(0, 0, "o", color="white", markeredgecolor="black")
        axis.set(xlabel="along the largest eigenvalue's vector", ylabel="along the smallest eigenvalue's vector")
        axis.grid(visible=False)
        figure.colorbar(filled, label="loss")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."

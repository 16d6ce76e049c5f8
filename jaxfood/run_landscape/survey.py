"""Survey a run: one checkpoint with its neighbourhood, or every checkpoint; and leave a saddle for a new run."""

from pathlib import Path
from typing import Any

from tqdm import tqdm

from jaxfood.config.sections import Config
from jaxfood.data.pictures import Pictures
from jaxfood.errors import UserError, printable
from jaxfood.landscape import LineSearch, Point, escape
from jaxfood.report.page import Page, escaped
from jaxfood.run_landscape.measure import SLICE_LOSSES, PointReport, classify, measure_geometry, planned_products
from jaxfood.run_landscape.more import load_stepping, measure_more, planned_more
from jaxfood.run_landscape.more_page import more_in_words, top_in_words, write_more
from jaxfood.run_landscape.network_loss import make_network_loss
from jaxfood.run_landscape.objective import load_sample, make_point
from jaxfood.run_landscape.page import write_checkpoint, write_path
from jaxfood.run_landscape.progress import ProductBar
from jaxfood.runs.directory import check_free, kept_steps, load_run, read_classes
from jaxfood.training.saved import begin_from


def survey_run(
    run: Path,
    config: Config,
    images: str,
    *,
    which: str | None,
    out: str | Path,
    new_run: Path | None = None,
    cache_dir: str = "",
    more: bool = False,
) -> None:
    """Write landscape.md, landscape.json and pictures, and print on the way what is found.

    Args:
        run: the work directory of a training.
        config: the run's; its `landscape` says how it is measured.
        images: labelled pictures that the loss is taken on.
        which: "best", "last" or the step of a checkpoint; None: every checkpoint that the run kept, classified only.
        out: a local folder for the page.
        cache_dir: where decoded pictures are kept; empty: where the run keeps them.
        more: also measure what costs many more products: `more.More`.
        new_run: free; becomes a run that begins below the saddle at `which`.

    Raises:
        UserError: a mistake in the pictures or the paths, a loss that is not finite, or no saddle to leave.
    """
    if new_run is not None:
        check_free(new_run, overwrite=False)
    page = Page(out, "landscape", f"where {run} stands")
    pictures = load_sample(images, config, run, cache_dir)
    page.text(
        f"The mean loss of {len(pictures)} pictures of {escaped(images)}, BatchNorm by the "
        f"{'running statistics' if config.landscape.statistics == 'running' else 'statistics of these pictures'}."
    )
    numbers = {"run": str(run), "images": images, "samples": len(pictures)}
    if which is None:
        page.save(numbers | _survey_path(run, config, pictures, page))
        print(printable(page.file))
        return
    _, variables, _ = load_run(run, which)
    with ProductBar() as bar:
        point = make_point(config, variables, pictures, bar.update)
        bar.expect(point, planned_products(point, config.landscape, geometry=True), SLICE_LOSSES)
        report = classify(point, config.landscape, config.landscape.top or config.model.num_classes)
        tqdm.write(printable(f"{run}, {which}: {_in_words(report)}"))
        with tqdm(total=SLICE_LOSSES, desc="losses of the slices", leave=False, delay=1) as losses:
            geometry = measure_geometry(point, report, config.landscape, losses.update)
        numbers |= write_checkpoint(page, f"{which} checkpoint", report, geometry)
        if more:
            numbers |= _measure_more(run, which, config, variables, pictures, point, page, bar)
    page.save(numbers)
    print(printable(page.file))
    if new_run is not None:
        print(printable(_leave_saddle(point, report, config, variables, run, new_run)))


def _measure_more(
    run: Path,
    which: str,
    config: Config,
    variables: dict[str, Any],
    pictures: Pictures,
    point: Point,
    page: Page,
    bar: ProductBar,
) -> dict[str, Any]:
    """What `--more` adds to the page, in words too; the page's numbers."""
    bar.total = point.products + planned_more(point, config.landscape)
    tqdm.write(f"--more: up to {planned_more(point, config.landscape)} products more")
    network = make_network_loss(config, variables["batch_stats"], pictures)
    measured = measure_more(point, network, config, load_stepping(run, config, which), bar.update)
    tqdm.write(printable(more_in_words(measured)))
    return write_more(page, measured)


def _survey_path(run: Path, config: Config, pictures: Pictures, page: Page) -> dict[str, Any]:
    """Every checkpoint's verdict; the page's numbers."""
    steps, reports = kept_steps(run), list[PointReport]()
    with ProductBar() as bar:
        for step in steps:
            _, variables, _ = load_run(run, step)
            point = make_point(config, variables, pictures, bar.update)
            if not reports:
                bar.expect(point, len(steps) * planned_products(point, config.landscape, geometry=False))
            reports.append(classify(point, config.landscape))
            tqdm.write(printable(f"{run}, step {step}: {_in_words(reports[-1])}"))
    return write_path(page, steps, reports)


def _leave_saddle(
    point: Point, report: PointReport, config: Config, variables: dict[str, Any], run: Path, new_run: Path
) -> str:
    """Begin a run at the lowest loss along the most negative eigenvector; how much lower, in words."""
    found = escape(point, report.pairs, LineSearch())
    if found.loss_after >= found.loss_before:
        raise UserError(f"no lower loss than {found.loss_before:.6g} found along the most negative eigenvector")
    begin_from(new_run, config, variables | {"params": found.params}, classes=read_classes(run))
    return (
        f"escaped along the eigenvalue {found.eigenvalue:.4g}: loss {found.loss_before:.6g} -> "
        f"{found.loss_after:.6g}; go on with: python -m jaxfood.train --workdir {new_run} --resume"
    )


def _in_words(report: PointReport) -> str:
    verdict = report.verdict
    return (
        f"{verdict.kind.replace('_', ' ')}: {verdict.reason}\n"
        f"  loss {verdict.downhill.loss:.6g}, gradient norm {report.gradient_norm:.4g}, "
        f"eigenvalues {verdict.smallest} to {verdict.largest}"
        + (f"\n  {top_in_words(report.top)}" if report.top else "")
    )

"""Survey a run: one checkpoint with its neighbourhood, or every checkpoint; and leave a saddle for a new run."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from jaxfood.config.sections import Config
from jaxfood.data.pictures import Pictures
from jaxfood.errors import UserError, printable
from jaxfood.landscape import LineSearch, Point, escape
from jaxfood.report.page import Page, escaped
from jaxfood.run_landscape.measure import (
    PARTS,
    QUICK,
    LocalGeometry,
    Plan,
    PointReport,
    begin_survey,
    classify,
    measure_geometry,
    plan_ends,
    plan_geometry,
)
from jaxfood.run_landscape.more import More, load_stepping, measure_more, planned_more
from jaxfood.run_landscape.more_page import more_in_words, top_in_words, write_more
from jaxfood.run_landscape.network_loss import make_network_loss
from jaxfood.run_landscape.objective import load_sample, make_point
from jaxfood.run_landscape.page import PICTURES, write_checkpoint, write_path
from jaxfood.run_landscape.progress import SurveyBar
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
    quick: bool = False,
    more: bool = False,
) -> None:
    """Write landscape.md, landscape.json and pictures, and print on the way what is found.

    The ends of the spectrum are written down before the rest is measured; what a Ctrl-C stops keeps what it has.

    Args:
        run: the work directory of a training.
        config: the run's; its `landscape` says how it is measured.
        images: labelled pictures that the loss is taken on.
        which: "best", "last" or the step of a checkpoint; None: every checkpoint that the run kept, classified only.
        out: a local folder for the page.
        new_run: free; becomes a run that begins below the saddle at `which`.
        cache_dir: where decoded pictures are kept; empty: where the run keeps them.
        quick: of the neighbourhood no more than the slices along lines.
        more: also measure what costs many more products: `more.More`.

    Raises:
        UserError: a mistake in the pictures or the paths, a loss that is not finite, or no saddle to leave.
        KeyboardInterrupt: the page says what is missing.
    """
    if new_run is not None:
        check_free(new_run, overwrite=False)
    _page(run, out)  # refuses what cannot be written before anything is measured
    pictures = load_sample(images, config, run, cache_dir)
    record = _Record(run, images, len(pictures), config.landscape.statistics, out)
    if which is None:
        _survey_path(record, config, pictures)
        return
    _, variables, _ = load_run(run, which)
    point, report = _survey_point(record, which, config, variables, pictures, QUICK if quick else PARTS, more)
    if new_run is not None:
        print(printable(_leave_saddle(point, report, config, variables, run, new_run)))


@dataclass(frozen=True)
class _Record:
    """What is written, and of what."""

    run: Path
    images: str
    samples: int
    statistics: str
    out: str | Path

    def write(self, content: Callable[[Page], dict[str, Any]], missing: Sequence[str] = (), why: str = "") -> Path:
        """The page and its numbers as they are now; pictures of an earlier survey that it has not are removed."""
        page = _page(self.run, self.out)
        page.text(
            f"The mean loss of {self.samples} pictures of {escaped(self.images)}, BatchNorm by the "
            f"{'running statistics' if self.statistics == 'running' else 'statistics of these pictures'}."
        )
        numbers = {"run": str(self.run), "images": self.images, "samples": self.samples}
        if missing:
            page.text(f"**Not measured** ({why}): {', '.join(missing)}.")
        numbers |= {"missing": list(missing), "why_missing": why if missing else ""}
        page.save(numbers | content(page))
        for name in PICTURES - page.pictures:
            (page.file.parent / f"landscape-{name}.png").unlink(missing_ok=True)
        return page.file


def _page(run: Path, out: str | Path) -> Page:
    return Page(out, "landscape", f"where {run} stands")


def _survey_point(
    record: _Record,
    which: str,
    config: Config,
    variables: dict[str, Any],
    pictures: Pictures,
    parts: Collection[str],
    more: bool,
) -> tuple[Point, PointReport]:
    """One checkpoint with its neighbourhood, and with `more` what `--more` names."""
    settings, geometry = config.landscape, LocalGeometry()
    report, measured = None, None
    left = ["more"] if more else []

    def write(why: str) -> Path:
        found = report
        assert found is not None

        def content(page: Page) -> dict[str, Any]:
            numbers = write_checkpoint(page, f"{which} checkpoint", found, geometry)
            return numbers if measured is None else numbers | write_more(page, measured)

        return record.write(content, [*geometry.missing, *left], why)

    with SurveyBar() as bar:
        point = make_point(config, variables, pictures, bar.product)
        rest = plan_geometry(point, settings, parts)
        bar.expect(point, plan_ends(point, settings), rest)
        try:
            report, told = begin_survey(point, settings, settings.top or max(1, config.model.num_classes))
            _tell(f"{record.run}, {which}", report)
            write("still being measured")
            bar.remaining(rest)
            bar.set_description_str("the rest of the landscape")
            for done in measure_geometry(point, report, told, settings, parts, bar.loss):
                geometry = done
            for found in _measure_more(record.run, which, config, variables, pictures, point, bar) if more else ():
                measured, left = found, ["the rest of --more"]
            left = []
        except KeyboardInterrupt as interrupt:
            if report is None:
                raise
            raise KeyboardInterrupt(f": {write('interrupted')} has what was measured") from interrupt
        except UserError as error:
            if report is not None:
                write(str(error))
            raise
    print(printable(write("--quick")))
    return point, report


def _measure_more(
    run: Path,
    which: str,
    config: Config,
    variables: dict[str, Any],
    pictures: Pictures,
    point: Point,
    bar: SurveyBar,
) -> Iterator[More]:
    """What `--more` adds, part by part; the first is told in words too."""
    planned = Plan(planned_more(point, config))
    bar.remaining(planned)
    tqdm.write(f"--more: up to {planned.products} products more, {bar.minutes(planned):.2g} minutes")
    network = make_network_loss(config, variables["batch_stats"], pictures)
    for number, done in enumerate(measure_more(point, network, config, load_stepping(run, config, which), bar.product)):
        if not number:
            tqdm.write(printable(more_in_words(done)))
        yield done


def _survey_path(record: _Record, config: Config, pictures: Pictures) -> None:
    """Every checkpoint's verdict."""
    steps, reports = kept_steps(record.run), list[PointReport]()

    def write(why: str) -> Path:
        done = steps[: len(reports)]
        left = [f"step {step}" for step in steps[len(reports) :]]
        return record.write(lambda page: write_path(page, done, reports), left, why)

    with SurveyBar() as bar:
        try:
            for number, step in enumerate(steps):
                _, variables, _ = load_run(record.run, step)
                point = make_point(config, variables, pictures, bar.product)
                still = [plan_ends(point, config.landscape)] * (len(steps) - number)
                if number:
                    bar.remaining(*still)
                else:
                    bar.expect(point, *still)
                reports.append(classify(point, config.landscape))
                _tell(f"{record.run}, step {step}", reports[-1])
        except KeyboardInterrupt as interrupt:
            if not reports:
                raise
            raise KeyboardInterrupt(f": {write('interrupted')} has what was measured") from interrupt
    print(printable(write("")))


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


def _tell(title: str, report: PointReport) -> None:
    verdict = report.verdict
    tqdm.write(printable(f"{title}: {verdict.kind.replace('_', ' ')}: {verdict.reason}"))
    tqdm.write(
        f"  loss {verdict.downhill.loss:.6g}, gradient norm {report.gradient_norm:.4g}, "
        f"eigenvalues {verdict.smallest} to {verdict.largest}"
        + (f"\n  {top_in_words(report.top)}" if report.top else "")
    )

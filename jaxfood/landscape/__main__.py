"""`python -m jaxfood.landscape`: where a run stands, saddle or minimum, and the way out."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from jaxfood import cli
from jaxfood.config import sources
from jaxfood.config.schema import Config, DeviceConfig
from jaxfood.errors import UserError
from jaxfood.files import is_remote

if TYPE_CHECKING:
    from jaxfood.data.pictures import Pictures
    from jaxfood.landscape import Point
    from jaxfood.report.page import Page
    from jaxfood.run_landscape.standing import Standing

DESCRIPTION = """Say where a trained run stands: whether the gradient has vanished, whether it is a minimum, a maximum
or a saddle, how sure that is, and how to leave it. Writes landscape.md, landscape.json and pictures."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, survey one checkpoint or all, print; then leave the saddle if asked to."""
    arguments, flags = _parse(argv)
    cli.set_up_jax(DeviceConfig())
    from jaxfood.report.page import Page
    from jaxfood.run_landscape import survey
    from jaxfood.runs.directory import check_free, read_config

    config = read_config(arguments.run, *flags)
    if arguments.escape is not None:
        check_free(arguments.escape, overwrite=False)
    page = Page(arguments.out or arguments.run / "landscape", "landscape", f"where {arguments.run} stands")
    pictures = survey.load_sample(arguments.images, config, arguments.run)
    page.text(
        f"The mean loss of {len(pictures)} pictures of {arguments.images}, BatchNorm by the "
        f"{'running statistics' if config.landscape.statistics == 'running' else 'statistics of these pictures'}."
    )
    common = {"run": str(arguments.run), "images": str(arguments.images), "samples": len(pictures)}
    if arguments.path:
        page.save(common | _path(arguments, config, pictures, page))
        print(page.file)
        return
    variables, point, found, numbers = _checkpoint(arguments, config, pictures, page)
    page.save(common | numbers)
    print(page.file)
    if arguments.escape is not None:
        _escape(arguments, config, variables, point, found)


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, tuple[sources.Source, ...]]:
    parser = cli.Parser("landscape", DESCRIPTION)
    parser.add_argument("run", metavar="RUN", type=cli.path, help="work directory of a training")
    parser.add_argument("--images", metavar="DIR", required=True, help="labelled pictures that the loss is taken on")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where to write (default: RUN/landscape)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--which", metavar="best|last|STEP", default="best", help="which checkpoint (default: best)")
    where.add_argument("--path", action="store_true", help="every checkpoint that the run kept, without surroundings")
    parser.add_argument("--escape", metavar="NEW_RUN", type=Path, help="leave along the most negative eigenvector")
    for name in ("samples", "seed"):
        parser.add_argument(f"--{name}", metavar="N", help=f"short for --landscape.{name}")
    arguments, flags = parser.parse_with_settings(argv, sections=("landscape",))
    if arguments.path and arguments.escape is not None:
        raise UserError("--escape leaves one checkpoint: name it with --which in place of --path")
    if is_remote(arguments.run) and arguments.out is None:
        raise UserError(f"{arguments.run} is in a bucket, and pages are written locally: name a folder with --out")
    short = {name: text for name in ("samples", "seed") if (text := getattr(arguments, name)) is not None}
    return arguments, (flags, sources.read_texts((f"landscape.{name}", text) for name, text in short.items()))


def _checkpoint(
    arguments: argparse.Namespace, config: Config, pictures: "Pictures", page: "Page"
) -> tuple[dict[str, Any], "Point", "Standing", dict[str, Any]]:
    """One checkpoint with its surroundings: its variables, the point, what was found, and the page's numbers."""
    from jaxfood.run_landscape import survey
    from jaxfood.run_landscape.page import tell_point
    from jaxfood.run_landscape.standing import find_standing, make_point
    from jaxfood.runs.directory import load_run

    _, variables, _ = load_run(arguments.run, arguments.which)
    with _Progress() as progress:
        point = make_point(config, variables, pictures, progress)
        progress.expect(point, survey.planned_products(point, config, around=True), survey.LOSSES)
        found = find_standing(point, config)
        tqdm.write(_in_words(f"{arguments.run}, {arguments.which}", found))
        with tqdm(total=survey.LOSSES, desc="losses of the slices", leave=False, delay=1) as bar:
            around = survey.look_around(point, found, config, bar.update)
    return variables, point, found, tell_point(page, f"{arguments.which} checkpoint", found, around)


def _path(arguments: argparse.Namespace, config: Config, pictures: "Pictures", page: "Page") -> dict[str, Any]:
    """Every checkpoint, the verdicts only."""
    from jaxfood.run_landscape import survey
    from jaxfood.run_landscape.page import tell_path
    from jaxfood.run_landscape.standing import Standing, find_standing, make_point
    from jaxfood.runs.directory import kept_steps, load_run

    steps = kept_steps(arguments.run)
    standings: list[Standing] = []
    with _Progress() as progress:
        for step in steps:
            _, variables, _ = load_run(arguments.run, step)
            point = make_point(config, variables, pictures, progress)
            if not standings:
                progress.expect(point, len(steps) * survey.planned_products(point, config, around=False))
            standings.append(find_standing(point, config))
            tqdm.write(_in_words(f"{arguments.run}, step {step}", standings[-1]))
    return tell_path(page, steps, standings)


def _escape(
    arguments: argparse.Namespace, config: Config, variables: dict[str, Any], point: "Point", found: "Standing"
) -> None:
    """Write the run that begins below the saddle."""
    from jaxfood.landscape import LineSearch, escape
    from jaxfood.runs.directory import read_classes
    from jaxfood.training.saved import begin_from

    way_out = escape(point, found.pairs, LineSearch())
    if way_out.loss_after >= way_out.loss_before:
        raise UserError(f"no lower loss than {way_out.loss_before:.6g} found along the most negative eigenvector")
    begin_from(arguments.escape, config, variables | {"params": way_out.params}, classes=read_classes(arguments.run))
    print(
        f"escaped along the eigenvalue {way_out.eigenvalue:.4g}: loss {way_out.loss_before:.6g} -> "
        f"{way_out.loss_after:.6g}; go on with: python -m jaxfood.train --workdir {arguments.escape} --resume"
    )


def _in_words(name: str, found: "Standing") -> str:
    verdict = found.verdict
    return (
        f"{name}: {verdict.kind.replace('_', ' ')}: {verdict.reason}\n"
        f"  loss {verdict.downhill.loss:.6g}, gradient norm {found.gradient_norm:.4g}, "
        f"eigenvalues {verdict.smallest} to {verdict.largest}"
    )


class _Progress:
    """A bar over Hessian-vector products, and how long they will take."""

    def __init__(self) -> None:
        self._bar = tqdm(desc="Hessian-vector products", unit="product", leave=False, delay=1)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def __call__(self) -> None:
        self._bar.update()

    def expect(self, point: "Point", products: int, losses: int = 0) -> None:
        """Time a product and a loss, and say what so many will take."""
        from jaxfood.run_landscape.survey import measure_seconds

        product, loss = measure_seconds(point)
        self._bar.total = point.products + products
        tqdm.write(
            f"{point.size:,} parameters; a Hessian-vector product takes {product:.2g} s, a loss {loss:.2g} s: about "
            f"{products} and {losses} of them, {(products * product + losses * loss) / 60:.2g} minutes"
        )


if __name__ == "__main__":
    cli.run(main)

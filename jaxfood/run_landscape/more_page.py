"""On the page of a run's landscape: its largest eigenvalues with the gradient's share, and what `--more` measures."""

from collections.abc import Mapping
from typing import Any

from jaxfood.report.page import Page, escaped
from jaxfood.run_landscape.measure import TopShares
from jaxfood.run_landscape.more import More, Preconditioned, Spread


def write_top(page: Page, top: TopShares) -> dict[str, Any]:
    """The table of the largest eigenvalues; the numbers for landscape.json."""
    page.text(
        f"The {len(top.values)} largest eigenvalues, and how much of the squared gradient lies in the span of the "
        "vectors of the first, the first two, ... of them (Gur-Ari et al. 2018):"
    )
    rows = list(zip(top.values, top.residuals, top.gradient_shares, strict=True))
    page.table(
        ("", "eigenvalue", "known to", "gradient's share so far"),
        ((str(n), value, f"± {residual:.1g}", f"{share:.1%}") for n, (value, residual, share) in enumerate(rows, 1)),
    )
    keys = ("value", "residual", "gradient_share")
    return {"top_eigenvalues": [dict(zip(keys, row, strict=True)) for row in rows]}


def top_in_words(top: TopShares) -> str:
    """The same in a line."""
    return (
        f"{top.gradient_shares[-1]:.0%} of the squared gradient lies along the {len(top.values)} largest eigenvalues' "
        "vectors"
    )


def write_more(page: Page, more: More) -> dict[str, Any]:
    """The tables of `--more`, as far as it is measured; the numbers for landscape.json."""
    page.text(_sharpness_in_words(more.preconditioned))
    _write_spreads(page, "matrix", {matrix.replace("_", " "): found for matrix, found in more.matrices.items()})
    page.text(
        "The remainder is the Hessian less Gauss-Newton; the Fisher information is that of the softmax, and of "
        "cross-entropy the same as Gauss-Newton."
    )
    _write_spreads(page, "block of the layer", {escaped(layer): found for layer, found in more.layers.items()})
    return {
        "preconditioned": _numbers(more.preconditioned),
        "matrices": {str(matrix): _spread_numbers(found) for matrix, found in more.matrices.items()},
        "layers": {layer: _spread_numbers(found) for layer, found in more.layers.items()},
    }


def _write_spreads(page: Page, of: str, found: Mapping[str, Spread]) -> None:
    page.table(
        (of, "largest eigenvalue", "known to", "trace", "known to"),
        (
            (
                name,
                spread.largest.value,
                f"± {spread.largest.residual:.1g}",
                spread.trace.value,
                f"± {spread.trace.standard_error:.1g}",
            )
            for name, spread in found.items()
        ),
    )


def _spread_numbers(found: Spread) -> dict[str, Any]:
    largest = found.largest
    return {"largest_eigenvalue": largest.value, "residual": largest.residual, "trace": found.trace._asdict()}


def _sharpness_in_words(sharp: Preconditioned | None) -> str:
    if sharp is None:
        return "The optimizer has no scale for each parameter, so that its own sharpness and the limit are not known."
    return (
        f"**As {sharp.optimizer} sees it**, each parameter in the scale of its steps, the sharpness is "
        f"{sharp.sharpness}; at the learning rate {sharp.rate:.3g} steps are stable up to {sharp.limit:.4g} (Cohen et "
        f"al. 2021, 2022): it stands at {_share(sharp.sharpness.value, sharp.limit)} times that."
    )


def _numbers(sharp: Preconditioned | None) -> dict[str, Any] | None:
    if sharp is None:
        return None
    return {
        "optimizer": sharp.optimizer,
        "learning_rate": sharp.rate,
        "sharpness": sharp.sharpness.value,
        "residual": sharp.sharpness.residual,
        "limit": sharp.limit,
    }


def more_in_words(more: More) -> str:
    """The optimizer's own sharpness in a line."""
    sharp = more.preconditioned
    if sharp is None:
        return "its own sharpness is not known: the optimizer has no scale for each parameter"
    return (
        f"sharpness as {sharp.optimizer} sees it {sharp.sharpness}, {_share(sharp.sharpness.value, sharp.limit)} times "
        f"its limit {sharp.limit:.4g} at the learning rate {sharp.rate:.3g}"
    )


def _share(value: float, limit: float) -> str:
    return f"{value / limit:.3g}"

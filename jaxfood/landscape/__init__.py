"""Where training stands: gradient, Hessian, minimum or saddle, and the way out. Knows a loss of parameters, no more.

objective = Objective(loss, batches)  # loss(params, batch) -> (sum, weight)
point = Point(objective, params)
pairs = extreme_eigenvalues(point, SpectrumSettings())
verdict = judge(expand_downhill(point), pairs, Tolerances())
print(verdict.kind, verdict.reason)
if verdict.kind is Kind.SADDLE:
    params = escape(point, pairs, LineSearch()).params
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxfood.config.landscape import SpectrumSettings, Tolerances
    from jaxfood.landscape.expansion import Comparison, Expansion, compare, expand, expand_downhill
    from jaxfood.landscape.line_search import Escape, LineSearch, escape
    from jaxfood.landscape.objective import Objective
    from jaxfood.landscape.point import Point
    from jaxfood.landscape.slices import filter_normalised, loss_slice
    from jaxfood.landscape.spectrum import (
        Density,
        Eigenpairs,
        Estimate,
        Share,
        extreme_eigenvalues,
        lanczos_vectors,
        minimum_ratio,
        spectral_density,
        trace,
    )
    from jaxfood.landscape.verdict import Eigenvalue, Kind, Verdict, judge
    from jaxfood.landscape.worst_rise import Sharpness, sharpness

_HOMES = {  # no module is named as a public name: once imported, it would stand in its place
    "Comparison": "landscape.expansion",
    "Density": "landscape.spectrum",
    "Eigenpairs": "landscape.spectrum",
    "Eigenvalue": "landscape.verdict",
    "Escape": "landscape.line_search",
    "Estimate": "landscape.spectrum",
    "Expansion": "landscape.expansion",
    "Kind": "landscape.verdict",
    "LineSearch": "landscape.line_search",
    "Objective": "landscape.objective",
    "Point": "landscape.point",
    "Share": "landscape.spectrum",
    "Sharpness": "landscape.worst_rise",
    "SpectrumSettings": "config.landscape",
    "Tolerances": "config.landscape",
    "Verdict": "landscape.verdict",
    "compare": "landscape.expansion",
    "escape": "landscape.line_search",
    "expand": "landscape.expansion",
    "expand_downhill": "landscape.expansion",
    "extreme_eigenvalues": "landscape.spectrum",
    "filter_normalised": "landscape.slices",
    "judge": "landscape.verdict",
    "lanczos_vectors": "landscape.spectrum",
    "loss_slice": "landscape.slices",
    "minimum_ratio": "landscape.spectrum",
    "sharpness": "landscape.worst_rise",
    "spectral_density": "landscape.spectrum",
    "trace": "landscape.spectrum",
}

__all__ = [
    "Comparison",
    "Density",
    "Eigenpairs",
    "Eigenvalue",
    "Escape",
    "Estimate",
    "Expansion",
    "Kind",
    "LineSearch",
    "Objective",
    "Point",
    "Share",
    "Sharpness",
    "SpectrumSettings",
    "Tolerances",
    "Verdict",
    "compare",
    "escape",
    "expand",
    "expand_downhill",
    "extreme_eigenvalues",
    "filter_normalised",
    "judge",
    "lanczos_vectors",
    "loss_slice",
    "minimum_ratio",
    "sharpness",
    "spectral_density",
    "trace",
]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that a command's `--help` does not wait for JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxfood.landscape' has no attribute {name!r}")
    return getattr(import_module(f"jaxfood.{_HOMES[name]}"), name)

"""Mathematics of a loss of parameters: gradient, Hessian, minimum or saddle, and the escape from it.

objective = Objective(loss, batches)  # loss(params, batch) -> (sum, weight)
point = Point(objective, params)
pairs = extreme_eigenvalues(point, SpectrumSettings())
verdict = judge(expand_downhill(point), pairs, Tolerances())
print(verdict.kind, verdict.reason)
if verdict.kind is Kind.SADDLE:
    params = escape(point, pairs, LineSearch()).params

A name is imported when it is first used, so that a command's `--help` does not wait for JAX. No module is named as a
public name: once imported, it would stand in its place.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from jaxfood.config.landscape import SpectrumSettings as SpectrumSettings
    from jaxfood.config.landscape import Tolerances as Tolerances
    from jaxfood.landscape.by_product import ByProduct as ByProduct
    from jaxfood.landscape.by_product import density_by as density_by
    from jaxfood.landscape.by_product import ends_with_by_product as ends_with_by_product
    from jaxfood.landscape.by_product import trace_by as trace_by
    from jaxfood.landscape.expansion import Comparison as Comparison
    from jaxfood.landscape.expansion import Expansion as Expansion
    from jaxfood.landscape.expansion import compare as compare
    from jaxfood.landscape.expansion import expand as expand
    from jaxfood.landscape.expansion import expand_downhill as expand_downhill
    from jaxfood.landscape.line_search import Escape as Escape
    from jaxfood.landscape.line_search import LineSearch as LineSearch
    from jaxfood.landscape.line_search import escape as escape
    from jaxfood.landscape.objective import Objective as Objective
    from jaxfood.landscape.point import Point as Point
    from jaxfood.landscape.slices import filter_normalised as filter_normalised
    from jaxfood.landscape.slices import loss_slice as loss_slice
    from jaxfood.landscape.spectrum import Density as Density
    from jaxfood.landscape.spectrum import Eigenpairs as Eigenpairs
    from jaxfood.landscape.spectrum import Estimate as Estimate
    from jaxfood.landscape.spectrum import Interval as Interval
    from jaxfood.landscape.spectrum import extreme_eigenvalues as extreme_eigenvalues
    from jaxfood.landscape.spectrum import lanczos_vectors as lanczos_vectors
    from jaxfood.landscape.spectrum import minimum_ratio as minimum_ratio
    from jaxfood.landscape.spectrum import spectral_density as spectral_density
    from jaxfood.landscape.spectrum import trace as trace
    from jaxfood.landscape.verdict import Eigenvalue as Eigenvalue
    from jaxfood.landscape.verdict import Kind as Kind
    from jaxfood.landscape.verdict import Verdict as Verdict
    from jaxfood.landscape.verdict import judge as judge
    from jaxfood.landscape.worst_rise import Sharpness as Sharpness
    from jaxfood.landscape.worst_rise import sharpness as sharpness

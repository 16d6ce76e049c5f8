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
    from jaxfood.landscape.changed import block as block
    from jaxfood.landscape.changed import layers_of as layers_of
    from jaxfood.landscape.changed import rescaled as rescaled
    from jaxfood.landscape.critical_points import Ending as Ending
    from jaxfood.landscape.critical_points import Found as Found
    from jaxfood.landscape.critical_points import Inertia as Inertia
    from jaxfood.landscape.critical_points import Search as Search
    from jaxfood.landscape.critical_points import find_critical_point as find_critical_point
    from jaxfood.landscape.critical_points import inertia as inertia
    from jaxfood.landscape.critical_rate import CriticalRate as CriticalRate
    from jaxfood.landscape.critical_rate import find_critical_rate as find_critical_rate
    from jaxfood.landscape.curvature import Matrix as Matrix
    from jaxfood.landscape.curvature import NetworkLoss as NetworkLoss
    from jaxfood.landscape.curves import Curve as Curve
    from jaxfood.landscape.curves import barrier as barrier
    from jaxfood.landscape.curves import fit_curve as fit_curve
    from jaxfood.landscape.curves import straight as straight
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
    from jaxfood.landscape.problems import deep_linear_network as deep_linear_network
    from jaxfood.landscape.problems import inflection as inflection
    from jaxfood.landscape.problems import linear_autoencoder as linear_autoencoder
    from jaxfood.landscape.problems import quadratic as quadratic
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
    from jaxfood.landscape.top import TopEigenpairs as TopEigenpairs
    from jaxfood.landscape.top import largest_eigenvalue as largest_eigenvalue
    from jaxfood.landscape.top import top_eigenpairs as top_eigenpairs
    from jaxfood.landscape.top import top_of_krylov as top_of_krylov
    from jaxfood.landscape.traces import LayerTraces as LayerTraces
    from jaxfood.landscape.traces import gradient_shares as gradient_shares
    from jaxfood.landscape.traces import trace_by_layer as trace_by_layer
    from jaxfood.landscape.verdict import Eigenvalue as Eigenvalue
    from jaxfood.landscape.verdict import Kind as Kind
    from jaxfood.landscape.verdict import Verdict as Verdict
    from jaxfood.landscape.verdict import gradient_rounding as gradient_rounding
    from jaxfood.landscape.verdict import judge as judge
    from jaxfood.landscape.worst_rise import Sharpness as Sharpness
    from jaxfood.landscape.worst_rise import sharpness as sharpness

"""Where the gradient is least near a point: up as well as down, so that saddles are found too."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import least_squares


def least_gradient(
    gradient: Callable[..., Any],
    hessian: Callable[..., Any],
    start: np.ndarray,
    *,
    tolerance: float,
    evaluations: int,
) -> np.ndarray:
    """Where |g|^2 is least near a start: Levenberg-Marquardt on the equations g = 0, whose Jacobian is the Hessian.

    Unlike training it goes up as well as down, so it ends in saddles too. It need not reach 0.

    Args:
        gradient: of parameters `[size]`.
        hessian: of them, `[size, size]`; compiled, the way there is a second.
        start: `[size]`.
        tolerance: of the sum of squares, the parameters and the gradient, as `scipy.optimize.least_squares` has them.
        evaluations: of the gradient, at most.

    Returns:
        the parameters `[size]`.
    """
    found = least_squares(
        lambda params: np.asarray(gradient(params)),
        start,
        lambda params: np.asarray(hessian(params)),
        method="lm",
        **dict.fromkeys(("ftol", "xtol", "gtol"), tolerance),
        max_nfev=evaluations,
    )
    params: np.ndarray = found.x
    return params

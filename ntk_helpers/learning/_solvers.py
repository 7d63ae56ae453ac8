"""SciPy's solvers of differential equations, for descent on any loss of many outputs: with systems that are
never formed, and slopes that jump.
"""

from collections.abc import Callable

import numpy as np
from scipy.integrate import BDF, RK23, solve_ivp
from scipy.sparse import csc_array

__all__ = ["descent"]


def descent(slope: Callable, curvature: Callable, features, times, size: int, rtol: float, atol: float):
    """The weights (times, size) that start at 0 and have the derivative `slope(t, w)`.

    The times ascend, and the first is the start. `curvature(w)` is a function that multiplies by the Hessian.
    Where the smooth method gives up the other takes over, from the last of the times before, with the root of
    the tolerance.
    """
    span, start = (times[0], max(times[-1], 1e-12)), np.zeros(size)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        found = solve_ivp(slope, span, start, _Implicit, times, rtol=rtol, atol=atol, curvature=curvature)
        states = [*found.y.T]
        if not found.success:
            span, rest, tolerance = (times[len(states) - 1], times[-1]), times[len(states) :], rtol**0.5
            found = solve_ivp(
                slope, span, states[-1], _Kinked, rest, rtol=tolerance, atol=atol, features=features
            )
            states += [*found.y.T] if len(found.t) else []
    if not found.success:
        raise RuntimeError(f"the solver stopped after t = {times[len(states) - 1]:.3g}: {found.message}")
    return np.stack(states)


class _Implicit(BDF):
    r"""BDF for $\dot w = -\nabla L$, whose Newton steps are conjugate gradients: its systems, with the matrix
    $1 + c \nabla^2 L$, are applied and never formed.

    SciPy's class has no hook for that. It subtracts c J from I, and gives the result to `lu` and that to
    `solve_lu`; so J is the Hessian as an object, which knows how to be multiplied and subtracted.
    """

    def __init__(self, *arguments, curvature, **settings):
        super().__init__(*arguments, **settings)
        self.jac = lambda t, w: _System(curvature(w))
        self.J, self.I = self.jac(self.t, self.y), 0
        self.lu, self.solve_lu = (lambda system: system), _System.solve

    def _validate_jac(self, jac, sparsity):
        return jac, csc_array((self.n, self.n))  # in place of a dense one


class _System:
    r"""The matrix $1 + c \nabla^2 L$."""

    __array_ufunc__ = None  # NumPy's numbers leave products with it to itself

    def __init__(self, curvature: Callable, c: float = 1.0):
        self.curvature, self.c = curvature, c

    def __rmul__(self, c):
        return _System(self.curvature, c)

    def __rsub__(self, identity):
        return self

    def solve(self, b: np.ndarray) -> np.ndarray:
        """By conjugate gradients, until the residual is a ten thousandth, or the matrix is not positive."""
        x, residual, direction = np.zeros_like(b), b, b
        size = b @ b
        enough = 1e-8 * size
        for _ in range(500):
            image = direction + self.c * self.curvature(direction)
            along = direction @ image
            if not (size > enough and along > 0):
                break
            x = x + size / along * direction
            residual = residual - size / along * image
            size, before = residual @ residual, size
            direction = residual + size / before * direction
        return x


class _Kinked(RK23):
    """RK23, to which a jump of the slope within a step is no error as long as the outputs, by all of it, move
    no further than the tolerance.

    A smooth slope changes by that much only in steps that the method itself accepts. Without the exception a
    solution that slides along a jump, from one side to the other, would stop it.
    """

    def __init__(self, *arguments, features, **settings):
        super().__init__(*arguments, **settings)
        self.features = features

    def _estimate_error_norm(self, slopes, h, scale):
        error = super()._estimate_error_norm(slopes, h, scale)
        if error < 1:
            return error
        k = self.features.shape[1]
        moved = abs(h) * np.ptp(self.features @ slopes.reshape(len(slopes), k, -1), axis=0).max()
        size = 1 + np.abs(self.features @ self.y.reshape(k, -1)).max()
        return min(error, (moved / (self.rtol * size)) ** 3)  # the method takes the third root for its step

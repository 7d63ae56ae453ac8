r"""The interface of an activation: a function, and what a Gaussian expectation makes of it.

For $(u, v) \sim \mathcal N(0, [[q_1, k], [k, q_2]])$ the infinite-width kernels need $E[\phi(u)\phi(v)]$
and $E[\phi'(u)\phi'(v)]$. Near $u = v$ the first is wanted as a difference from its aligned value, so every
map takes the correlation $c = k/\sqrt{q_1 q_2}$ through `gap` $= 1 - c$ and `plus` $= 1 + c$: a number
close to 1 has lost the digits that its distance from 1 still has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ntk_helpers._lib.angles import safe_sqrt
from ntk_helpers._lib.inputs import check_finite, check_real, check_variance, is_traced

__all__ = ["Activation"]

Map = Callable[[Array, Array, Array, Array], Array]


def _everywhere() -> float:
    return np.inf


@dataclass(frozen=True, repr=False)
class Activation:
    r"""An activation $\phi$ with its dual maps, the expectations that kernels of infinite width are made of.

    `quadrature` makes one of any elementwise function; `closed_forms` holds those whose maps are formulas.
    For $(u, v)$ Gaussian with variances $q_1$, $q_2$ and correlation $c$, as arrays that broadcast:

    - `aligned(q1, q2)` is $E[\phi(u)\phi(v)]$ at $c = 1$;
    - `drop(q1, q2, gap, plus)` is what that loses at $c$, aligned $- E[\phi(u)\phi(v)]$, given `gap`
      $= 1 - c$ and `plus` $= 1 + c$, accurate relative to itself as `gap` $\to 0$;
    - `mismatch(q1, q2)` is $1 - $ aligned $/\sqrt{E[\phi(u)^2]\,E[\phi(v)^2]}$, the correlation that unequal
      variances cost at $c = 1$, accurate relative to $q_1 - q_2$ as they meet (GELU's is not);
    - `slope(q1, q2, gap, plus)` is $E[\phi'(u)\phi'(v)]$;
    - `homogeneous` says that $\phi(az) = a\,\phi(z)$ for $a > 0$, so that correlations do not depend on
      variances;
    - `reach()` is the largest variance at which the maps are good. They are NaN above.

    The maps are Poole et al. 2016, eqs. 3 and 5, and Jacot et al. 2018, Thm 1; that the derivative of
    $E[\phi\phi]$ in $k$ is $E[\phi'\phi']$ is Price's theorem (1958).

    >>> round(float(get_activation("relu").dual(1.0, 1.0, 0.0)), 4)  # 1 / 2π
    0.1592
    """

    name: str
    fn: Callable[[Array], Array]
    aligned: Callable[[Array, Array], Array]
    drop: Map
    mismatch: Callable[[Array, Array], Array]
    slope: Map
    homogeneous: bool = False
    reach: Callable[[], float] = _everywhere

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"

    def dual(self, q1, q2, k) -> Array:
        r"""$E[\phi(u)\phi(v)]$ for variances `q1`, `q2` and covariance `k`, arrays that broadcast.

        Raises `ValueError` for what are no variances and no covariance of them, and for variances beyond
        `reach()`; inside `jit` it is NaN there.
        """
        return _dual(self, *_checked(self, q1, q2, k))

    def dual_derivative(self, q1, q2, k) -> Array:
        r"""$E[\phi'(u)\phi'(v)]$ for variances `q1`, `q2` and covariance `k`, arrays that broadcast.

        Raises as `dual`.
        """
        return _dual_derivative(self, *_checked(self, q1, q2, k))

    def derivative(self, z: Array) -> Array:
        r"""$\phi'(z)$, elementwise."""
        return jnp.vectorize(jax.grad(self.fn))(z)

    def check_reach(self, q: float) -> None:
        """Raise `ValueError` unless the dual maps are good at the variance `q`."""
        if q > self.reach():
            raise ValueError(
                f"dual maps of activation {self.name!r} are good up to variances of {self.reach():.2g}, and "
                f"{q:.3g} is asked for; expected smaller inputs or weights."
            )


@partial(jax.jit, static_argnums=0)
def _dual(phi: Activation, q1, q2, k) -> Array:
    return phi.aligned(q1, q2) - phi.drop(q1, q2, *_gap_and_plus(q1, q2, k))


@partial(jax.jit, static_argnums=0)
def _dual_derivative(phi: Activation, q1, q2, k) -> Array:
    return phi.slope(q1, q2, *_gap_and_plus(q1, q2, k))


def _checked(phi: Activation, q1, q2, k) -> list[Array]:
    """Real arrays, or `ValueError` for what no variances and covariance can be."""
    arrays = [check_real(name, value) for name, value in (("q1", q1), ("q2", q2), ("k", k))]
    check_variance("q1", arrays[0])
    check_variance("q2", arrays[1])
    check_finite("k", arrays[2])
    if not is_traced(arrays):
        q1, q2, k = (np.asarray(value, float) for value in arrays)
        slack = 1 + float(jnp.finfo(jnp.result_type(*arrays, jnp.float32)).eps) ** 0.5
        if (np.abs(k) > slack * np.sqrt(q1) * np.sqrt(q2)).any():
            raise ValueError(
                "k is larger than the root of q1 q2; expected a covariance between the two variances' bounds."
            )
        phi.check_reach(max(q.max(initial=0.0) for q in (q1, q2)))
    return [jnp.asarray(value, jnp.result_type(float)) for value in arrays]


def _gap_and_plus(q1, q2, k) -> tuple[Array, Array]:
    norm = safe_sqrt(q1 * q2)
    c = k / jnp.where(norm > 0, norm, 1.0)
    return 1 - c, 1 + c

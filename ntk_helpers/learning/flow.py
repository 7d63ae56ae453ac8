r"""Gradient flow on any loss of the outputs, under a tangent kernel that does not change."""

from collections.abc import Callable

import jax
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_helpers._lib.host import in_float64, numbers
from ntk_helpers._lib.inputs import is_number, traced
from ntk_helpers._lib.outputs import columns
from ntk_helpers._lib.spectrum import as_matrix, check_values, rounding, spectrum
from ntk_helpers.learning._program import as_program
from ntk_helpers.learning.conventions import check_times

__all__ = ["kernel_flow"]


def kernel_flow(
    theta: Float[ArrayLike, "n n"] | Float[ArrayLike, "n n o o"],
    loss: Callable[[Array], Array],
    t: Float[ArrayLike, " times"],
    f0: Float[ArrayLike, "n o"] | Float[ArrayLike, " n"],
    theta_test=None,
    f0_test: Float[ArrayLike, "m o"] | Float[ArrayLike, " m"] | None = None,
    rtol: float = 1e-8,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    r"""Outputs in time of gradient flow on any loss of the outputs, under a constant tangent kernel.

    `loss` maps the outputs at the training points, of the shape of `f0`, to a number, with JAX: a
    cross-entropy, for example. The outputs of a linear model with features F, $F F^\top = \Theta$, start at
    `f0` and follow its weights,

    $$ \dot w = -F^\top \nabla L(f), \qquad f = f_0 + F w \quad\text{(Lee et al. 2019, section 2.2)}. $$

    Returns the outputs at the training points, (times, n, o), and with `theta_test` and `f0_test` also those
    at m other points, (times, m, o). Everything is float64 on the host, without the axis o where `f0` has
    none. Only products with F and with the Hessian of `loss` are computed, so thousands of outputs are no
    harm.

    `rtol` is the relative tolerance of a step of SciPy's BDF method. A loss whose gradient jumps, as that of
    a hinge, can keep outputs at the jump, where no smooth method gets on. From there on errors are of first
    order in the step, and the tolerance is the root of `rtol`: a larger one makes this much faster.

    Raises:

    - `ValueError` for arrays that do not match or are not finite, and for what is no kernel;
    - `ValueError` for a `loss` that fails, or does not return one number;
    - `ValueError` for times that are negative or infinite, and an `rtol` outside (0, 1);
    - `RuntimeError` where the outputs leave every bound in finite time.

    >>> labels = jnp.array([0, 1])
    >>> loss = lambda f: -jax.nn.log_softmax(f)[jnp.arange(2), labels].mean()
    >>> kernel_flow(np.eye(2), loss, t=[0.0, 10.0], f0=np.zeros((2, 2)))[1].round(2)
    array([[ 1.09, -1.09],
           [-1.09,  1.09]])
    """
    check_values("theta", theta)
    if not callable(loss):
        raise ValueError(f"loss is {loss!r}; expected a function of the outputs.")
    if not is_number(rtol) or not 0 < rtol < 1:
        raise ValueError(f"rtol is {rtol!r}; expected a relative tolerance, between 0 and 1.")
    t = check_times(t, whole=False)
    if t.ndim != 1 or np.isinf(t).any():
        raise ValueError(f"t is {t}; expected a row of finite times.")
    n, outputs = columns("f0", f0).shape
    f0 = numbers("f0", f0)
    shape = numbers("theta", theta).shape
    if shape not in ((n, n), (n, n, outputs, outputs)):
        raise ValueError(
            f"theta has shape {shape} and f0 {f0.shape}; expected ({n}, {n}) or with two axes of {outputs}."
        )
    if (theta_test is None) != (f0_test is None):
        raise ValueError("one of theta_test and f0_test is missing; expected both or neither.")
    if theta_test is not None:
        start = columns("f0_test", f0_test, (None, outputs))
        cross = as_matrix(numbers("theta_test", theta_test, (len(start), n, *shape[2:])))
        start = start.reshape(len(start), *f0.shape[1:])

    values, vectors = spectrum(theta)
    known = values > rounding(theta) * values[-1]
    roots, vectors = np.sqrt(values[known]), vectors[:, known]
    features = vectors * roots
    weights = _flow(features, loss, t, f0, rtol, 1e-3 * rtol / roots[-1])
    train = f0 + _outputs(features, weights).reshape(-1, *f0.shape)
    if theta_test is None:
        return train
    return train, start + _outputs(cross @ (vectors / roots), weights).reshape(-1, *start.shape)


def _outputs(features, weights):
    """F w, for weights (times, k o) of the o outputs that share features (n, k)."""
    return features @ weights.reshape(len(weights), features.shape[1], -1)


def _flow(features, loss, t, f0, rtol: float, atol: float) -> np.ndarray:
    """The weights at the times, (times, k o)."""
    from ntk_helpers.learning._solvers import descent  # SciPy's take a quarter of a second to import

    shape = (features.shape[0], f0.size // features.shape[0])
    k = features.shape[1]
    outputs = lambda w: f0 + (features @ w.reshape(k, -1)).reshape(f0.shape)
    back = lambda slopes: (features.T @ np.asarray(slopes).reshape(shape)).ravel()

    with in_float64():
        if getattr(traced("loss", loss, f0), "shape", None) != ():
            raise ValueError("loss does not return one number for outputs (n, o).")
        slope = as_program(jax.grad(loss), f0)
        bend = as_program(lambda f, v: jax.jvp(jax.grad(loss), (f,), (v,))[1], f0, f0)

        def descend(_, w):
            return -back(_called(slope, outputs(w)))

        def curvature(w):
            f = jax.device_put(outputs(w))
            return lambda v: back(_called(bend, f, (features @ v.reshape(k, -1)).reshape(f0.shape)))

        ends, order = np.unique(np.append(0.0, t), return_inverse=True)
        return descent(descend, curvature, features, ends, shape[1] * k, rtol, atol)[order[1:]]


@jax.jit
def _called(program: Partial, *arguments):
    return program(*arguments)

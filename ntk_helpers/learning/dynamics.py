r"""Training in closed form: gradient descent on a network whose tangent kernel does not change.

With a constant kernel $\Theta$ the squared loss falls apart into the kernel's eigenmodes. In each of them
descent is a scalar recursion, so outputs at any number of times follow from one eigendecomposition.
Everything here is float64 on the host.
"""

from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float

from ntk_helpers._lib.host import numbers
from ntk_helpers._lib.inputs import check_choice, check_one_variance
from ntk_helpers._lib.outputs import columns, like
from ntk_helpers._lib.spectrum import as_matrix, check_values, rounding, spectrum
from ntk_helpers.learning.conventions import check_rule, check_times, loss_scale
from ntk_helpers.learning.posterior import Posterior

__all__ = ["KernelDynamics", "kernel_dynamics"]


@dataclass(frozen=True, eq=False)
class KernelDynamics:
    r"""What `kernel_dynamics` returns: the modes of the training kernel, and outputs at any times.

    Times `t` are an array of any shape, `...` below: of time for the flow, of whole steps for descent; `inf`
    is the limit. In mode k, with $\mu_k = \lambda_k + \rho$, the residual shrinks by a factor $p_k(t)$, and
    $\alpha_k(t) = (1 - p_k)/\mu_k$:

    - flow: $p_k = e^{-s \mu_k t}$;
    - descent: each step $v \leftarrow m v + p$, $p \leftarrow p - \eta s \mu_k v$, from v = 0 and p = 1; for
      m = 0 that is $p_k = (1 - \eta s \mu_k)^i$.

    A mode whose $\mu_k$ is zero to rounding is not learned, $p_k = 1$ and $\alpha_k = 0$; `unlearned` counts
    them. For a kernel (n, n, o, o) the modes are of its (n o, n o) matrix, else each output has the same n
    modes.

    Outputs come as the targets `y` came: for (n,) without the axis o of outputs. Starts `f0` of one output
    are (n,) or (n, 1).

    >>> dynamics = kernel_dynamics(np.diag([1.0, 2.0]), np.ones(2), loss="sum_half", learning_rate=0.25)
    >>> dynamics.rates, dynamics.unlearned, dynamics.condition
    (array([1., 2.]), 0, 2.0)
    >>> dynamics.remaining([0, 1, 2])
    array([[1.    , 1.    ],
           [0.75  , 0.5   ],
           [0.5625, 0.25  ]])
    """

    eigenvalues: Float[np.ndarray, " k"]
    eigenvectors: Float[np.ndarray, "k k"]
    y: Float[np.ndarray, "n o"] | Float[np.ndarray, " n"]
    scale: float
    ridge: float
    learning_rate: float | None
    momentum: float
    cutoff: float

    @property
    def rates(self) -> Float[np.ndarray, " k"]:
        r"""The rate $s \mu_k$ of each mode under gradient flow."""
        return self.scale * self._mu

    @property
    def unlearned(self) -> int:
        """How many modes are zero to rounding."""
        return int((self._mu <= self.cutoff).sum())

    @property
    def condition(self) -> float:
        r"""$\mu_{\max}/\mu_{\min}$, infinite where a mode is unlearned."""
        return np.inf if self.unlearned else float(self._mu[-1] / self._mu[0])

    def remaining(self, t) -> Float[np.ndarray, "... k"]:
        """The factors $p_k(t)$ of all modes."""
        return self._factors(t)[0]

    def train(self, t, f0: Float[ArrayLike, "n o"]) -> Float[np.ndarray, "... n o"]:
        r"""Outputs at the training points of a network that starts at `f0`.

        $f_t(X) = y + U\,(p + \rho\alpha)\,U^\top (f_0 - y)$ (Lee et al. 2019, eq. 8).
        """
        residual = self._residual(f0)
        p, alpha = self._factors(t)
        return like(
            self.y, self._targets + self._combine(self.eigenvectors, p + self.ridge * alpha, residual)
        )

    def test(self, t, f0, f0_test: Float[ArrayLike, "m o"], theta_test) -> Float[np.ndarray, "... m o"]:
        r"""Outputs at m test points, where the network starts at `f0_test`.

        `theta_test` is $\Theta(x, X)$, (m, n) or (m, n, o, o) as the training kernel.
        $f_t(x) = f_0(x) - \Theta(x, X)\,U \alpha\,U^\top (f_0(X) - y)$ (Lee et al. 2019, eqs. 10 and 11).
        """
        f0_test, residual = columns("f0_test", f0_test, (None, self._targets.shape[1])), self._residual(f0)
        basis = self._cross(theta_test, len(f0_test)) @ self.eigenvectors
        return like(self.y, f0_test - self._combine(basis, self._factors(t)[1], residual))

    def distribution(
        self, t, theta_test, nngp_train, nngp_cross, nngp_test, covariance: str = "full"
    ) -> Posterior:
        r"""Mean and covariance at m test points, over networks that start as draws of the Gaussian process K.

        K is the kernel `nngp`: `nngp_train` is K(X, X), `nngp_cross` K(x, X) of shape (m, n), `nngp_test`
        K(x, x). With $A = \Theta(x, X)\,U\alpha\,U^\top$ the mean is $A y$, (..., m, o). The covariance, the
        same for each output, is $K(x,x) + A K(X,X) A^\top - A K(X,x) - K(x,X) A^\top$ (Lee et al. 2019, eqs.
        14 and 15, for any two points): (..., m, m), or its diagonal (..., m) for `covariance="diagonal"`.
        The training points are test points like others. The tangent kernel must be (n, n).
        """
        check_choice("covariance", covariance, ("full", "diagonal"))
        n, outputs = self._targets.shape
        if len(self.eigenvalues) != n:
            raise ValueError(
                f"theta has blocks of {outputs} outputs; expected (n, n), one kernel for every output."
            )
        nngp_cross = numbers("nngp_cross", nngp_cross, (None, n))
        m = len(nngp_cross)
        nngp_train = numbers("nngp_train", nngp_train, (n, n))
        nngp_test = numbers("nngp_test", nngp_test, (m, m))
        mean = self.test(t, np.zeros((n, outputs)), np.zeros((m, outputs)), theta_test)
        basis = self._cross(theta_test, m) @ self.eigenvectors
        train, cross = self.eigenvectors.T @ nngp_train @ self.eigenvectors, nngp_cross @ self.eigenvectors

        def at(alpha):
            a = basis * alpha
            if covariance == "diagonal":
                return np.diagonal(nngp_test) + ((a @ train - 2 * cross) * a).sum(1)
            mixed = a @ cross.T
            return nngp_test + a @ train @ a.T - mixed - mixed.T

        alphas = self._factors(t)[1]
        found = np.stack([at(alpha) for alpha in alphas.reshape(-1, n)])
        return Posterior(mean, found.reshape(alphas.shape[:-1] + found.shape[1:]))

    @property
    def _mu(self):
        return self.eigenvalues + self.ridge

    @property
    def _targets(self):
        return columns("y", self.y)

    def _residual(self, f0):
        start = columns("f0", f0, self._targets.shape)
        return self.eigenvectors.T @ (start - self._targets).reshape(len(self.eigenvalues), -1)

    def _cross(self, theta_test, m: int):
        n, outputs = self._targets.shape
        full = len(self.eigenvalues) != n or (outputs == 1 and np.ndim(theta_test) == 4)
        blocks = (outputs, outputs) if full else ()
        return as_matrix(numbers("theta_test", theta_test, (m, n, *blocks)))

    def _combine(self, basis, factors, residual):
        """basis · diag(factors) · residual for every time: (..., points, outputs)."""
        *times, modes = factors.shape
        weighted = factors.reshape(-1, 1, modes) * residual.T
        found = (weighted.reshape(-1, modes) @ basis.T).reshape(-1, residual.shape[1], len(basis))
        return found.swapaxes(1, 2).reshape(*times, -1, self._targets.shape[1])

    def _factors(self, t):
        """p and α, (..., k) each."""
        t = check_times(t, whole=self.learning_rate is not None)
        mu, known = self._mu, self._mu > self.cutoff
        final = np.isinf(t)[..., None]
        finite = np.where(final, 0.0, t[..., None])
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if self.learning_rate is None:
                exponent = -self.scale * mu * finite
                p, alpha = np.exp(exponent), -np.expm1(exponent) / mu
            else:
                steps = np.minimum(finite[..., 0], 2.0**62).astype(np.int64)
                p, alpha = _descend(mu, steps, self.learning_rate * self.scale, self.momentum)
            p, alpha = np.where(final, 0.0, p), np.where(final, 1 / mu, alpha)
        p, alpha = np.where(known, p, 1.0), np.where(known, alpha, 0.0)
        if self.learning_rate is not None:
            limit = 2 * (1 + self.momentum) / (self.scale * mu[-1])
            if not np.isfinite([p, alpha]).all() or (final.any() and self.learning_rate >= limit):
                raise ValueError(
                    f"descent diverges: learning_rate is {self.learning_rate:.4g}, and above {limit:.4g} "
                    "outputs grow without bound, here beyond what a number can hold; expected a smaller "
                    "learning_rate, or fewer steps."
                )
        return p, alpha


def kernel_dynamics(
    theta: Float[ArrayLike, "n n"] | Float[ArrayLike, "n n o o"],
    y: Float[ArrayLike, "n o"] | Float[ArrayLike, " n"],
    *,
    loss: str,
    learning_rate: float | None = None,
    momentum: float = 0.0,
    ridge: float = 0.0,
) -> KernelDynamics:
    r"""Gradient descent on a squared loss under a constant tangent kernel, solved in closed form.

    `theta` is the kernel of the training points: (n, n), the same for each output, or (n, n, o, o). `y` are
    the targets, (n,) for one output. `loss` is a convention of `loss_scale`. Without `learning_rate` this is
    gradient flow $\dot\theta = -\nabla L$ in time t. With it these are steps of gradient descent, with the
    heavy-ball `momentum` of `optax.sgd`. `ridge` $\rho$ adds $\frac{s\rho}{2} \|\theta - \theta_0\|^2$ to the
    loss, so that training ends at kernel regression with $\Theta + \rho I$.

    The outputs are those of the linearized network exactly, of a wide network nearly (Lee et al. 2019, Thm
    2.1). The result has no gradients, and cannot be computed inside `jit`.

    Raises:

    - `ValueError` for arrays that do not match or are not finite;
    - `ValueError` for a kernel that is asymmetric, or has an eigenvalue below 0 by more than rounding;
    - `ValueError` for an unknown `loss`, a `learning_rate` that is not positive, a `momentum` outside [0, 1),
      and a negative `ridge`.

    >>> dynamics = kernel_dynamics(np.eye(2), np.array([1.0, -1.0]), loss="sum_half")
    >>> dynamics.train([0.0, 1.0, np.inf], f0=np.zeros(2)).round(3)
    array([[ 0.   ,  0.   ],
           [ 0.632, -0.632],
           [ 1.   , -1.   ]])
    """
    check_values("theta", theta)
    targets = columns("y", y)
    if learning_rate is not None:
        check_rule(learning_rate, momentum)
    elif momentum:
        raise ValueError(
            f"momentum is {momentum} without a learning_rate; expected both, or neither for gradient flow."
        )
    check_one_variance("ridge", ridge)
    shape = numbers("theta", theta).shape
    n, outputs = targets.shape
    if shape not in ((n, n), (n, n, outputs, outputs)):
        raise ValueError(
            f"theta has shape {shape} and y {np.shape(y)}; "
            f"expected ({n}, {n}) or ({n}, {n}, {outputs}, {outputs})."
        )
    scale, (values, vectors) = loss_scale(loss, n, outputs), spectrum(theta)
    cutoff = rounding(theta) * values[-1]
    y = numbers("y", y)
    return KernelDynamics(values, vectors, y, scale, float(ridge), learning_rate, momentum, cutoff)


def _descend(mu, steps, rate: float, momentum: float):
    """p and α after whole numbers of steps, (..., k): the powers of one step by repeated squaring.

    The step is a matrix (k, 3, 3) on (α, v, p).
    """
    one, zero = np.ones_like(mu), np.zeros_like(mu)
    v = np.stack([zero, momentum * one, one])
    alpha, p = np.stack([one, zero, zero]) + rate * v, np.stack([zero, zero, one]) - rate * mu * v
    step = np.moveaxis(np.stack([alpha, v, p]), 2, 0)
    state = np.broadcast_to(np.array([0.0, 0.0, 1.0]), (*steps.shape, len(mu), 3))
    for bit in range(int(steps.max(initial=0)).bit_length()):
        moved = np.einsum("kij,...kj->...ki", step, state)
        state = np.where((steps >> bit & 1)[..., None, None], moved, state)
        step = step @ step
    return state[..., 2], state[..., 0]

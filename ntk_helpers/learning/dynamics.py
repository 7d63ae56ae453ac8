r"""Training in closed form: gradient descent on a network whose tangent kernel does not change.

With a constant kernel $\Theta$ the squared loss falls apart into the kernel's eigenmodes. In each of them
descent is a scalar recursion, so outputs at any number of times follow from one eigendecomposition.
Everything here is float64 on the host.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float

from ntk_helpers._lib.host import numbers
from ntk_helpers._lib.inputs import check_choice, check_numbers, check_one_variance, is_number
from ntk_helpers._lib.old_jax import enable_x64
from ntk_helpers.learning._spectrum import as_matrix, rounding, spectrum
from ntk_helpers.learning.conventions import check_rule, loss_scale
from ntk_helpers.learning.posterior import Posterior

__all__ = ["KernelDynamics", "kernel_dynamics", "kernel_flow"]


# --- squared loss


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
    """

    eigenvalues: Float[np.ndarray, " k"]
    eigenvectors: Float[np.ndarray, "k k"]
    y: Float[np.ndarray, "n o"]
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
        """The factors $p_k(t)$."""
        return self._factors(t)[0]

    def train(self, t, f0: Float[Array, "n o"]) -> Float[np.ndarray, "... n o"]:
        r"""Outputs at the training points of a network that starts at `f0`.

        $f_t(X) = y + U\,(p + \rho\alpha)\,U^\top (f_0 - y)$ (Lee et al. 2019, eq. 8).
        """
        residual = self._residual(f0)
        p, alpha = self._factors(t)
        return self.y + self._combine(self.eigenvectors, p + self.ridge * alpha, residual)

    def test(self, t, f0, f0_test: Float[Array, "m o"], theta_test) -> Float[np.ndarray, "... m o"]:
        r"""Outputs at m test points, where the network starts at `f0_test`, given `theta_test`,
        $\Theta(x, X)$.

        $f_t(x) = f_0(x) - \Theta(x, X)\,U \alpha\,U^\top (f_0(X) - y)$ (Lee et al. 2019, eqs. 10 and 11).
        """
        f0_test, residual = numbers("f0_test", f0_test, (None, self.y.shape[1])), self._residual(f0)
        theta_test = self._cross(theta_test, len(f0_test))
        return f0_test - self._combine(theta_test @ self.eigenvectors, self._factors(t)[1], residual)

    def distribution(
        self, t, theta_test, nngp_train, nngp_cross, nngp_test, covariance: str = "full"
    ) -> Posterior:
        r"""Mean and covariance at m test points over networks that start as draws of the Gaussian process
        `nngp`, K.

        With $A = \Theta(x, X)\,U\alpha\,U^\top$ the mean is $A y$ (..., m, o) and the covariance, the same
        for each output, $K(x,x) + A K(X,X) A^\top - A K(X,x) - K(x,X) A^\top$ (Lee et al. 2019, eqs. 14 and
        15, for any two points): (..., m, m), or its diagonal (..., m) for `covariance="diagonal"`.
        `nngp_cross` is K(x, X), (m, n). The training points are test points like others. The kernel must be
        (n, n).
        """
        check_choice("covariance", covariance, ("full", "diagonal"))
        n, outputs = self.y.shape
        if len(self.eigenvalues) != n:
            raise ValueError(
                f"theta has blocks of {outputs} outputs; expected (n, n), one kernel for every output."
            )
        nngp_cross = numbers("nngp_cross", nngp_cross, (None, n))
        m = len(nngp_cross)
        nngp_train, nngp_test = (
            numbers("nngp_train", nngp_train, (n, n)),
            numbers("nngp_test", nngp_test, (m, m)),
        )
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

    def _residual(self, f0):
        f0 = numbers("f0", f0, self.y.shape)
        return self.eigenvectors.T @ (f0 - self.y).reshape(len(self.eigenvalues), -1)

    def _cross(self, theta_test, m: int):
        n, outputs = self.y.shape
        full = len(self.eigenvalues) != n or (outputs == 1 and np.ndim(theta_test) == 4)
        blocks = (outputs, outputs) if full else ()
        return as_matrix(numbers("theta_test", theta_test, (m, n, *blocks)))

    def _combine(self, basis, factors, residual):
        """basis · diag(factors) · residual for every time: (..., points, outputs)."""
        *times, modes = factors.shape
        weighted = factors.reshape(-1, 1, modes) * residual.T
        found = weighted.reshape(-1, modes) @ basis.T
        return (
            found.reshape(-1, residual.shape[1], len(basis))
            .swapaxes(1, 2)
            .reshape(*times, -1, self.y.shape[1])
        )

    def _factors(self, t):
        """p and α, (..., k) each."""
        t = _times(t, whole=self.learning_rate is not None)
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
                    f"descent diverges: learning_rate is {self.learning_rate:.4g}, and above {limit:.4g} outputs grow without bound, "
                    "here beyond what a number can hold; expected a smaller learning_rate, or fewer steps."
                )
        return p, alpha


def kernel_dynamics(
    theta: Float[Array, "n n"] | Float[Array, "n n o o"],
    y: Float[Array, "n o"],
    *,
    loss: str,
    learning_rate: float | None = None,
    momentum: float = 0.0,
    ridge: float = 0.0,
) -> KernelDynamics:
    r"""Gradient descent on a squared loss under the constant tangent kernel `theta` of the training points,
    solved in closed form.

    `theta` is (n, n), the same for each output, or (n, n, o, o). `loss` is a convention of `loss_scale`.
    Without `learning_rate`: gradient flow $\dot\theta = -\nabla L$ in time t. With it: steps of gradient
    descent, with the heavy-ball `momentum` of `optax.sgd`. `ridge` $\rho$ adds
    $\frac{s\rho}{2} \|\theta - \theta_0\|^2$ to the loss, so that training ends at kernel regression with
    $\Theta + \rho I$. Outputs are those of the linearized network exactly, of a wide network nearly (Lee et
    al. 2019, Thm 2.1).

    Raises `ValueError` for arrays that do not match or are not finite, a kernel that is asymmetric or has an
    eigenvalue below 0 by more than rounding, an unknown `loss`, a `learning_rate` that is not positive, a
    `momentum` outside [0, 1), a negative `ridge`.
    """
    y = numbers("y", y, (None, None))
    if learning_rate is not None:
        check_rule(learning_rate, momentum)
    elif momentum:
        raise ValueError(
            f"momentum is {momentum} without a learning_rate; expected both, or neither for gradient flow."
        )
    check_one_variance("ridge", ridge)
    shape = numbers("theta", theta).shape
    n, outputs = y.shape
    if shape not in ((n, n), (n, n, outputs, outputs)):
        raise ValueError(
            f"theta has shape {shape} and y {y.shape}; expected ({n}, {n}) or ({n}, {n}, {outputs}, {outputs})."
        )
    scale, (values, vectors) = loss_scale(loss, n, outputs), spectrum(theta)
    return KernelDynamics(
        values, vectors, y, scale, float(ridge), learning_rate, momentum, rounding(theta) * values[-1]
    )


def _descend(mu, steps, rate: float, momentum: float):
    """p and α after whole numbers of steps, (..., k), by repeated squaring of one step, (k, 3, 3), on (α, v,
    p)."""
    one, zero = np.ones_like(mu), np.zeros_like(mu)
    v = np.stack([zero, momentum * one, one])
    step = np.moveaxis(
        np.stack([np.stack([one, zero, zero]) + rate * v, v, np.stack([zero, zero, one]) - rate * mu * v]),
        2,
        0,
    )
    state = np.broadcast_to(np.array([0.0, 0.0, 1.0]), (*steps.shape, len(mu), 3))
    for bit in range(int(steps.max(initial=0)).bit_length()):
        moved = np.einsum("kij,...kj->...ki", step, state)
        state = np.where((steps >> bit & 1)[..., None, None], moved, state)
        step = step @ step
    return state[..., 2], state[..., 0]


# --- any loss


def kernel_flow(
    theta: Float[Array, "n n"] | Float[Array, "n n o o"],
    loss: Callable[[Array], Array],
    t: Float[Array, " times"],
    f0: Float[Array, "n o"],
    theta_test=None,
    f0_test: Float[Array, "m o"] | None = None,
    rtol: float = 1e-8,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    r"""Outputs in time of gradient flow on any loss of the outputs, under a constant tangent kernel.

    `loss` maps the outputs (n, o) at the training points to a number, with JAX: a cross-entropy, for example.
    Solves $\dot a = \nabla L(f_0 - \Theta a)$, a = 0 at t = 0, by SciPy's BDF method with the Hessian of
    `loss`; the outputs are $f_0 - \Theta a$ at the training points, (times, n, o), and, with `theta_test`,
    $f_0(x) - \Theta(x, X)\,a$ at others too, (times, m, o) (Lee et al. 2019, section 2.2). `rtol` is the
    relative tolerance of the solver. Raises `ValueError` as `kernel_dynamics`, and for times that are
    negative or infinite; `RuntimeError` where the solver gives up.
    """
    from scipy.integrate import solve_ivp  # a quarter of a second that nothing else needs

    if not callable(loss):
        raise ValueError(f"loss is {loss!r}; expected a function of the outputs.")
    if not is_number(rtol) or not 0 < rtol < 1:
        raise ValueError(f"rtol is {rtol!r}; expected a relative tolerance, between 0 and 1.")
    f0, t = numbers("f0", f0, (None, None)), _times(t, whole=False)
    if t.ndim != 1 or np.isinf(t).any():
        raise ValueError(f"t is {t}; expected a row of finite times.")
    n, outputs = f0.shape
    matrix = numbers("theta", theta)
    if matrix.shape not in ((n, n), (n, n, outputs, outputs)):
        raise ValueError(
            f"theta has shape {matrix.shape} and f0 {f0.shape}; expected ({n}, {n}) or with two axes of {outputs}."
        )
    spectrum(theta)
    if (theta_test is None) != (f0_test is None):
        raise ValueError("one of theta_test and f0_test is missing; expected both or neither.")
    matrix = _whole(matrix, outputs)
    if theta_test is not None:
        f0_test = numbers("f0_test", f0_test, (None, outputs))
        blocks = np.shape(theta)[2:]
        cross = _whole(numbers("theta_test", theta_test, (len(f0_test), n, *blocks)), outputs)

    with enable_x64(True):
        flat = lambda f: loss(f.reshape(n, outputs))
        if getattr(jax.eval_shape(flat, f0.ravel()), "shape", None) != ():
            raise ValueError("loss does not return one number for outputs (n, o).")
        slope, bend = jax.jit(jax.grad(flat)), jax.jit(jax.hessian(flat))
        ends, order = np.unique(np.append(0.0, t), return_inverse=True)
        found = solve_ivp(
            lambda _, a: np.asarray(slope(f0.ravel() - matrix @ a)),
            (0.0, ends[-1] or 1e-12),
            np.zeros(f0.size),
            "BDF",
            ends,
            rtol=rtol,
            atol=rtol * 1e-3,
            jac=lambda _, a: -np.asarray(bend(f0.ravel() - matrix @ a)) @ matrix,
        )
    if not found.success:
        raise RuntimeError(
            f"the solver stopped at t = {found.t[-1] if found.t.size else 0.0:.3g}: {found.message}"
        )
    a = found.y[:, order[1:]].T
    train = f0 - (a @ matrix.T).reshape(-1, n, outputs)
    return train if theta_test is None else (train, f0_test - (a @ cross.T).reshape(-1, *f0_test.shape))


# --- checks and shapes


def _times(t, whole: bool) -> np.ndarray:
    found = check_numbers("t", t, np.asarray)
    if (
        np.iscomplexobj(found)
        or found.size == 0
        or not (found >= 0).all()
        or (whole and not (found == np.floor(found)).all())
    ):
        kind = "whole numbers of steps" if whole else "times"
        raise ValueError(f"t is {t!r}; expected {kind}, at least 0; inf is the limit.")
    return found.astype(np.float64)


def _whole(theta, outputs: int) -> np.ndarray:
    """The (m o, n o) matrix, of a kernel that the outputs share too."""
    return np.kron(theta, np.eye(outputs)) if theta.ndim == 2 else as_matrix(theta)

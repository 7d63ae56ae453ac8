"""Errors that a student could believe, to be planted in a copy of the package: who notices?

Each replaces one piece of text, which stands once in its file.
"""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ERRORS", "Error"]


@dataclass(frozen=True)
class Error:
    """A name, what is wrong, and the change of a file of the package."""

    name: str
    wrong: str
    file: str
    old: str
    new: str

    def plant(self, package: Path) -> None:
        """Change the file in a copy of the package; `ValueError` where the text does not stand there once."""
        path = package / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.old!r} stands {text.count(self.old)} times in {self.file}; expected once."
            )
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


ERRORS = [
    Error(
        "limit-5-percent",
        "the tangent kernel of the limit is 5 % too large",
        "infinite/_recursion.py",
        "return _covariance(*pairs), tangent",
        "return _covariance(*pairs), 1.05 * tangent",
    ),
    Error(
        "no-weight-variance",
        "the recursion of the tangent kernel forgets σ_w² before the slopes",
        "infinite/_recursion.py",
        "bias + net.sigma_w2 * slope * tangent",
        "bias + slope * tangent",
    ),
    Error(
        "first-bias",
        "the bias of the first layer is missing in the tangent kernel",
        "infinite/_recursion.py",
        "tangent = weight[0] * inputs.covariance() + bias",
        "tangent = weight[0] * inputs.covariance()",
    ),
    Error(
        "relu-angle",
        "ReLU's slopes use twice the angle: κ₀ = 1 - 2θ/π",
        "networks/closed_forms.py",
        "curved * (jnp.pi - angle(gap, plus)) / (2 * jnp.pi)",
        "curved * (jnp.pi - 2 * angle(gap, plus)) / (2 * jnp.pi)",
    ),
    Error(
        "erf-arcsine",
        "the variance after erf is 5 % too small",
        "networks/closed_forms.py",
        "return 2 / jnp.pi * arc(*_sine_cosine(q1, q2))",
        "return 1.9 / jnp.pi * arc(*_sine_cosine(q1, q2))",
    ),
    Error(
        "fan-out",
        "weights are scaled by the fan-out in place of the fan-in",
        "networks/mlp.py",
        "return [jnp.sqrt(self.sigma_w2 / n) for n in self.fan_in(d_in)]",
        "return [jnp.sqrt(self.sigma_w2 / n) for n in (*self.widths, self.d_out)]",
    ),
    Error(
        "twice-the-variance",
        "networks in standard parameterization are drawn with twice σ_w²",
        "networks/mlp.py",
        'jnp.sqrt(net.sigma_w2 / n) * p["w"]',
        'jnp.sqrt(2 * net.sigma_w2 / n) * p["w"]',
    ),
    Error(
        "forgotten-biases",
        "drawn kernels leave the biases' part out",
        "finite/sampling.py",
        "return NTKSamples((weights + biases).sum(0)",
        "return NTKSamples(weights.sum(0)",
    ),
    Error(
        "fourth-moment",
        "the moments of finite ReLU kernels take 2 in place of 3 for a Gaussian's fourth moment",
        "finite/moments.py",
        "fourth = other + 3 * same",
        "fourth = other + 2 * same",
    ),
    Error(
        "mean-loss",
        "the gradient of the mean over 2 n o is that of the mean over n o",
        "learning/conventions.py",
        '"mean_half": lambda terms: 1 / terms',
        '"mean_half": lambda terms: 2 / terms',
    ),
    Error(
        "largest-rate",
        "the largest learning rate is 1/λ_max",
        "learning/conventions.py",
        "return float(2 * (1 + momentum) / (_scale(theta, loss, outputs) * values[-1]))",
        "return float((1 + momentum) / (_scale(theta, loss, outputs) * values[-1]))",
    ),
    Error(
        "missing-inverse",
        "trained to the end, the closed form forgets the inverse of the kernel",
        "learning/dynamics.py",
        "np.where(final, 1 / mu, alpha)",
        "np.where(final, 1.0, alpha)",
    ),
    Error(
        "one-cross-term",
        "the covariance of trained networks has one of its two cross terms",
        "learning/dynamics.py",
        "return nngp_test + a @ train @ a.T - mixed - mixed.T",
        "return nngp_test + a @ train @ a.T - (mixed + mixed.T) / 2",
    ),
    Error(
        "noise-squared",
        "the Gaussian process squares the noise variance",
        "learning/gp.py",
        "k_train + noise * jnp.eye",
        "k_train + noise**2 * jnp.eye",
    ),
    Error(
        "first-order-twice",
        "the linearization moves half as far as the parameters",
        "learning/expansion.py",
        "sum(term / factorial(k) for k, term in enumerate(each))",
        "sum(term / factorial(k + (k > 0)) for k, term in enumerate(each))",
    ),
    Error(
        "n-for-n-minus-1",
        "n - p in place of n - p - 1 in the risk of weak features",
        "theory/risk.py",
        "gain, missed = p / (n - p - 1), 0.0",
        "gain, missed = p / (n - p), 0.0",
    ),
    Error(
        "half-the-ridge",
        "the effective ridge takes half of the ridge",
        "theory/risk.py",
        "excess = lambda kappa: n - ridge / kappa",
        "excess = lambda kappa: n - ridge / (2 * kappa)",
    ),
    Error(
        "critical-deviation",
        "the critical σ_w² is taken for a standard deviation",
        "theory/meanfield.py",
        "    return 1 / slope\n",
        "    return 1 / slope**0.5\n",
    ),
    Error(
        "single-precision",
        "the closed forms decompose kernels in float32",
        "learning/_spectrum.py",
        "np.linalg.eigh((matrix + matrix.T) / 2)",
        "np.linalg.eigh(((matrix + matrix.T) / 2).astype(np.float32))",
    ),
]

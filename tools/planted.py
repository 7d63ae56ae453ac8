"""Errors that a student could believe, to be planted in a copy of the package or a notebook: who notices?

Each replaces one piece of text, which stands once in its file. `ERRORS` are those of the package. A slip is
one in a notebook's own cells, for a claim that no error of the package can reach: a notebook's slips stand in
tools/slips/, are planted all at once, and each names the claim that should notice.
"""

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

__all__ = ["ERRORS", "Error", "Slip", "slips_of"]


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
        text = self._text(package)
        (package / self.file).write_text(text.replace(self.old, self.new), encoding="utf-8")

    def mark(self, package: Path) -> None:
        """Let the function around the error add its name to the set `builtins.reached` when it is called.
        Where there is none, the import does."""
        text = self._text(package)
        lines = text.splitlines(keepends=True)
        line = text[: text.index(self.old)].count("\n") + 1
        around = [
            node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef) and node.body[0].lineno <= line <= node.end_lineno
        ]
        if around:
            first = min(around, key=lambda node: node.end_lineno - node.lineno).body[0]
            at, indent = first.lineno - 1, " " * first.col_offset
        else:
            at, indent = len(lines), ""
        lines.insert(at, f"{indent}__import__('builtins').reached.add({self.name!r})\n")
        (package / self.file).write_text("".join(lines), encoding="utf-8")

    def _text(self, package: Path) -> str:
        text = (package / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.old!r} stands {text.count(self.old)} times in {self.file}; expected once."
            )
        return text


@dataclass(frozen=True)
class Slip:
    """The words by which a claim begins, what is wrong, and the change of a cell."""

    claim: str
    wrong: str
    old: str
    new: str

    def plant(self, notebook: NotebookNode) -> None:
        """Change the cell; `ValueError` where the text does not stand once in the notebook's code."""
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        count = sum(cell.source.count(self.old) for cell in cells)
        if count != 1:
            raise ValueError(f"{self.old!r} stands {count} times in the notebook's code; expected once.")
        for cell in cells:
            cell.source = cell.source.replace(self.old, self.new)


def slips_of(stem: str, folder: Path) -> list[Slip]:
    """The slips of a notebook, from `folder`; none where there is no file."""
    path = folder / f"{stem}.toml"
    return (
        [Slip(**slip) for slip in tomllib.loads(path.read_text(encoding="utf-8"))["slip"]]
        if path.exists()
        else []
    )


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
        "mup-as-ntk",
        "the output of μP is divided by √n once, by its layer, and not by n",
        "networks/mlp.py",
        "return self.alpha / self.widths[-1] ** 0.5",
        "return self.alpha",
    ),
    Error(
        "sgd-rates-for-adam",
        "Adam is given the rates of SGD",
        "learning/training/rates.py",
        'if optimizer == "sgd":',
        'if optimizer in ("sgd", "adam"):',
    ),
    Error(
        "unscaled-biases",
        "the rates of a parameterization are given to weights and not to biases",
        "learning/training/rates.py",
        "lambda u: u / divisor(u.size)",
        "lambda u: u / divisor(u.size) if u.ndim > 1 else u",
    ),
    Error(
        "alpha-not-squared",
        "kernels of an output α times as large are α times as large",
        "infinite/fully_connected.py",
        "jnp.asarray(alpha, kernel.dtype) ** 2 * kernel",
        "jnp.asarray(alpha, kernel.dtype) * kernel",
    ),
    Error(
        "not-centred",
        "the coordinate check trains f and not f - f₀",
        "trust/coordinates.py",
        "net.apply(params, x) - at_start",
        "net.apply(params, x)",
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
        "no-shared-units",
        "the variance of the kernel leaves out what two units share, A without 2B",
        "finite/corrections.py",
        "ntk_covariance=last.a + turned(last.b)",
        "ntk_covariance=last.a",
    ),
    Error(
        "frozen-variances",
        "the covariance of the kernel forgets that a layer's variances fluctuate below it",
        "finite/_layers.py",
        "a = share * omega_omega + _first(omega_with_k, omega_with_k(at.v)) + cross",
        "a = share * omega_omega + cross",
    ),
    Error(
        "half-the-movement",
        "the kernel moves by the second derivatives at its first point only",
        "finite/corrections.py",
        'jnp.einsum("abbb->ab", of_one + of_one.transpose(1, 0, 2, 3))',
        'jnp.einsum("abbb->ab", of_one)',
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
        "_lib/spectrum.py",
        "np.linalg.eigh((matrix + matrix.T) / 2)",
        "np.linalg.eigh(((matrix + matrix.T) / 2).astype(np.float32))",
    ),
    Error(
        "independent-backward",
        "in drawn kernels, the weights of the way back are drawn anew",
        "finite/sampling.py",
        "return rest + (d @ self.z.T - rest @ self.q) @ self.q.T",
        "return rest",
    ),
    Error(
        "first-parameter",
        "the kernel of given parameters leaves the first of their arrays out",
        "finite/_methods.py",
        "for each in plans), jnp.zeros(()))",
        "for each in plans[1:]), jnp.zeros(()))",
    ),
    Error(
        "sum-for-trace",
        "the trace over outputs is their sum in place of their mean",
        "finite/_methods.py",
        'kernel / a.outputs if a.output == "trace" else kernel',
        "kernel",
    ),
    Error(
        "tanh-slopes",
        "E[φ'φ'] of activations without a closed form is 3 % too small",
        "networks/numerical.py",
        "return self._add_octaves(total, a, b, b.above, lambda *terms: _left(*terms, gap, plus))",
        "return 0.97 * self._add_octaves(total, a, b, b.above, lambda *terms: _left(*terms, gap, plus))",
    ),
    Error(
        "meanfield-bias",
        "variances travel through layers without σ_b²",
        "theory/meanfield.py",
        "q = w2 * q_hat + b2",
        "q = w2 * q_hat",
    ),
    Error(
        "chi-without-weights",
        "χ₁ at the fixed point forgets σ_w²",
        "theory/meanfield.py",
        'chi_1 = w2 * maps("slope"',
        'chi_1 = maps("slope"',
    ),
    Error(
        "condition-of-m",
        "the condition number counts a point as its own neighbour",
        "theory/meanfield.py",
        "self.theta + (m - 1) * self.theta_ab",
        "self.theta + m * self.theta_ab",
    ),
    Error(
        "depth-scale",
        "depth scales are those of squares: 2 in place of 1",
        "theory/meanfield.py",
        "return -1 / math.log(rate)",
        "return -2 / math.log(rate)",
    ),
    Error(
        "ridge-per-point",
        "the ridge of least squares is multiplied by the number of points",
        "learning/regression.py",
        "self.eigenvalues + ridge[..., None]",
        "self.eigenvalues + len(self.targets) * ridge[..., None]",
    ),
    Error(
        "wide-features",
        "the arguments of random features have variance 2 in place of 1",
        "learning/regression.py",
        "return phi(x @ w.T)",
        "return phi(2**0.5 * (x @ w.T))",
    ),
    Error(
        "hermite-mean",
        "an activation's mean counts as its nonlinear part",
        "theory/random_features.py",
        "whole - zeroth - first",
        "whole - first",
    ),
    Error(
        "linear-over-whole",
        "ζ² is the linear part over the whole, not over the rest",
        "theory/random_features.py",
        "zeta2 = mu1 / rest",
        "zeta2 = mu1 / (mu1 + rest)",
    ),
    Error(
        "bias-not-squared",
        "the bias of ridge regression is not squared",
        "theory/risk.py",
        "(power * (1 - learned) ** 2).sum()",
        "(power * (1 - learned)).sum()",
    ),
    Error(
        "forgotten-atom",
        "descent forgets what lies outside the span of the data",
        "theory/risk.py",
        "return bulk + signal * max(1 - 1 / gamma, 0.0)",
        "return bulk",
    ),
    Error(
        "time-of-momentum",
        "time of flow forgets the momentum's 1/(1 - m)",
        "learning/conventions.py",
        "return found * learning_rate / (1 - momentum)",
        "return found * learning_rate",
    ),
    Error(
        "determinant",
        "the likelihood counts log det twice",
        "learning/gp.py",
        "constant = jnp.log(jnp.diagonal(root)).sum()",
        "constant = 2 * jnp.log(jnp.diagonal(root)).sum()",
    ),
    Error(
        "noisy-posterior",
        "the posterior of the function carries the noise of the targets",
        "learning/gp.py",
        "k_test - half.T @ half, root",
        "k_test + noise * jnp.eye(len(k_test)) - half.T @ half, root",
    ),
    Error(
        "twice-the-flow",
        "gradient flow on a general loss runs at twice its speed",
        "learning/flow.py",
        "return -back(_called(slope, outputs(w)))",
        "return -2 * back(_called(slope, outputs(w)))",
    ),
    Error(
        "loss-without-half",
        "networks are trained on twice the loss that is asked for",
        "learning/training/_descent.py",
        "((outputs - y) ** 2).sum() / 2",
        "((outputs - y) ** 2).sum()",
    ),
    Error(
        "forgotten-multiplicities",
        "the budget of a learning curve counts each degree once, however many functions it has",
        "theory/spectra.py",
        "effective_ridge(n, values, ridge + max(spectrum.tail, 0.0), counts)",
        "effective_ridge(n, values, ridge + max(spectrum.tail, 0.0))",
    ),
    Error(
        "eigenvalue-of-a-degree",
        "an eigenvalue on the sphere is that of all harmonics of its degree together",
        "theory/spectra.py",
        "values = kept / np.sqrt(multiplicities)",
        "values = kept * np.sqrt(multiplicities)",
    ),
    Error(
        "spectrum-of-the-matrix",
        "eigenvalues of the kernel matrix are not divided by the number of points",
        "theory/spectra.py",
        "Spectrum(values[::-1] / len(y)",
        "Spectrum(values[::-1]",
    ),
    Error(
        "residuals-for-left-out",
        "errors of leaving one out are the residuals of the fit, without the leverages",
        "learning/regression.py",
        "return like(self.rest, errors / weights[..., None])",
        "return like(self.rest, errors * np.ones_like(weights)[..., None])",
    ),
    Error(
        "half-the-determinant",
        "the evidence of a fit counts half of log det",
        "learning/regression.py",
        "outputs * (determinant + n",
        "outputs * (determinant / 2 + n",
    ),
    Error(
        "loo-without-squares",
        "the diagonal of the inverse is that of its root, when a kernel is learned by leaving one out",
        "learning/gp.py",
        "(inverse**2).sum(0)",
        "jnp.abs(inverse).sum(0)",
    ),
    Error(
        "not-centred-alignment",
        "the centred alignment of kernels is not centred",
        "learning/alignment.py",
        "    if centred:\n        found",
        "    if False:\n        found",
    ),
    Error(
        "landmarks-without-root",
        "features of landmarks are divided by the eigenvalue, not by its root",
        "learning/nystrom.py",
        "vectors / np.sqrt(values)",
        "vectors / values",
    ),
]

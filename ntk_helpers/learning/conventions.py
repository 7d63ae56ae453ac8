r"""What a squared loss, a learning rate and a time mean: the factors by which papers and libraries differ."""

import numpy as np

from ntk_helpers._lib.inputs import check_choice, check_numbers, check_positive, check_size, is_number
from ntk_helpers._lib.spectrum import spectrum

__all__ = ["critical_learning_rate", "loss_scale", "max_learning_rate", "steps_to_time"]

LOSSES = {
    "sum_half": lambda terms: 1.0,
    "mean_half": lambda terms: 1 / terms,
    "mean": lambda terms: 2 / terms,
}


def loss_scale(loss: str, n: int, outputs: int = 1) -> float:
    r"""The factor s in $\nabla_f L = s\,(f - y)$, for n points and o outputs.

    - `"sum_half"`: $\frac12 \sum (f - y)^2$, s = 1 (Lee et al. 2019);
    - `"mean_half"`: $\frac1{2no} \sum (f - y)^2$, s = 1/(no) (neural-tangents);
    - `"mean"`: $\frac1{no} \sum (f - y)^2$, s = 2/(no).

    Raises:

    - `ValueError` for another name, and for sizes below 1.

    >>> loss_scale("mean", 10, outputs=2)
    0.1
    """
    check_choice("loss", loss, LOSSES)
    return LOSSES[loss](check_size("n", n) * check_size("outputs", outputs))


def steps_to_time(steps, learning_rate: float, momentum: float = 0.0) -> np.ndarray:
    r"""The time $t = \eta\,i / (1 - m)$ of gradient flow that i small steps of size $\eta$ with momentum m
    take.

    Raises:

    - `ValueError` for numbers of steps below 0;
    - `ValueError` for a `learning_rate` that is not positive, and a `momentum` outside [0, 1).

    >>> steps_to_time([0, 10], learning_rate=0.5, momentum=0.9)
    array([ 0., 50.])
    """
    check_rule(learning_rate, momentum)
    found = check_numbers("steps", steps, np.asarray)
    if np.iscomplexobj(found) or not (found >= 0).all():
        raise ValueError(f"steps is {steps!r}; expected numbers of steps, at least 0.")
    return found * learning_rate / (1 - momentum)


def max_learning_rate(theta, loss: str, outputs: int | None = None, momentum: float = 0.0) -> float:
    r"""The learning rate $2 (1 + m) / (s \lambda_{\max})$, above which descent under a constant kernel
    diverges.

    `theta` is a tangent kernel as `kernel_dynamics` takes it, m the momentum of `optax.sgd` (Polyak 1964), s
    from `loss_scale`. A loss that is a mean over `outputs` needs their number where `theta` is (n, n), the
    same for each of them. A kernel (n, n, o, o) tells the number itself.

    Raises:

    - `ValueError` for what is no kernel, as `kernel_dynamics`;
    - `ValueError` for an unknown `loss`, and a `momentum` outside [0, 1);
    - `ValueError` for `outputs` that are missing, below 1, or not as many as the kernel's blocks say.

    >>> max_learning_rate(np.eye(4), "mean", outputs=10)
    40.0
    """
    check_rule(1.0, momentum)
    values, _ = spectrum(theta)
    return float(2 * (1 + momentum) / (_scale(theta, loss, outputs) * values[-1]))


def critical_learning_rate(theta, loss: str, outputs: int | None = None) -> float:
    r"""The learning rate $2 / (s (\lambda_{\min} + \lambda_{\max}))$, at which the slowest mode is fastest
    (Lee et al. 2019, Thm 2.1).

    It takes the same arguments and raises the same errors as `max_learning_rate`.

    >>> critical_learning_rate(np.diag([1.0, 3.0]), "sum_half")
    0.5
    """
    values, _ = spectrum(theta)
    return float(2 / (_scale(theta, loss, outputs) * (values[0] + values[-1])))


def _scale(theta, loss: str, outputs: int | None) -> float:
    check_choice("loss", loss, LOSSES)
    shape = np.shape(theta)
    if len(shape) == 4 and outputs not in (None, shape[2]):
        raise ValueError(f"outputs is {outputs!r}, and theta has shape {shape}; expected {shape[2]}.")
    if len(shape) == 2 and outputs is None and loss != "sum_half":
        raise ValueError(
            f"outputs is missing; expected their number, as the loss {loss!r} is a mean over outputs, and "
            f"theta of shape {shape} does not tell how many there are."
        )
    known = shape[2] if len(shape) == 4 else outputs
    return loss_scale(loss, len(theta), 1 if known is None else known)


def check_rule(learning_rate, momentum) -> None:
    """Raise `ValueError` unless the learning rate is positive and the momentum in [0, 1)."""
    check_positive("learning_rate", learning_rate)
    if not is_number(momentum) or not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum!r}; expected a number in [0, 1).")


def check_times(t, whole: bool) -> np.ndarray:
    """Times, or whole numbers of steps, as float64; `ValueError` for what is neither."""
    found = check_numbers("t", t, np.asarray)
    real = not np.iscomplexobj(found) and found.size and (found >= 0).all()
    if not real or (whole and not (found == np.floor(found)).all()):
        kind = "whole numbers of steps" if whole else "times"
        raise ValueError(f"t is {t!r}; expected {kind}, at least 0; inf is the limit.")
    return found.astype(np.float64)

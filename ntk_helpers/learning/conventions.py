r"""What a squared loss and a learning rate mean: the factors by which papers and libraries differ."""

import numpy as np

from ntk_helpers._lib.inputs import check_choice, check_numbers, check_positive, check_size, is_number
from ntk_helpers.learning._spectrum import spectrum

__all__ = ["critical_learning_rate", "loss_scale", "max_learning_rate", "steps_to_time"]

LOSSES = {
    "sum_half": lambda terms: 1.0,
    "mean_half": lambda terms: 1 / terms,
    "mean": lambda terms: 2 / terms,
}


def loss_scale(loss: str, n: int, outputs: int = 1) -> float:
    r"""The factor s in $\nabla_f L = s\,(f - y)$, for n points and o outputs.

    `"sum_half"`: $\frac12 \sum (f - y)^2$, s = 1 (Lee et al. 2019). `"mean_half"`:
    $\frac1{2no} \sum (f - y)^2$, s = 1/(no) (neural-tangents). `"mean"`: $\frac1{no} \sum (f - y)^2$, s =
    2/(no). Raises `ValueError` for another name or sizes below 1.
    """
    check_choice("loss", loss, LOSSES)
    return LOSSES[loss](check_size("n", n) * check_size("outputs", outputs))


def steps_to_time(steps, learning_rate: float, momentum: float = 0.0) -> np.ndarray:
    r"""The time $t = \eta\,i / (1 - m)$ of gradient flow that i small steps of size $\eta$ with momentum m
    take.

    Raises `ValueError` for numbers of steps below 0, a `learning_rate` that is not positive and a `momentum`
    outside [0, 1).
    """
    check_rule(learning_rate, momentum)
    found = check_numbers("steps", steps, np.asarray)
    if np.iscomplexobj(found) or not (found >= 0).all():
        raise ValueError(f"steps is {steps!r}; expected numbers of steps, at least 0.")
    return found * learning_rate / (1 - momentum)


def max_learning_rate(theta, loss: str, outputs: int = 1, momentum: float = 0.0) -> float:
    r"""The learning rate $2 (1 + m) / (s \lambda_{\max})$, above which descent under a constant kernel
    diverges.

    `theta` and `outputs` as for `kernel_dynamics`; m is the momentum of `optax.sgd` (Polyak 1964). Raises as
    `kernel_dynamics`.
    """
    check_rule(1.0, momentum)
    values, _ = spectrum(theta)
    return float(2 * (1 + momentum) / (_scale(theta, loss, outputs) * values[-1]))


def critical_learning_rate(theta, loss: str, outputs: int = 1) -> float:
    r"""The learning rate $2 / (s (\lambda_{\min} + \lambda_{\max}))$, at which the slowest mode is fastest
    (Lee et al. 2019, Thm 2.1).

    Arguments and errors as for `max_learning_rate`.
    """
    values, _ = spectrum(theta)
    return float(2 / (_scale(theta, loss, outputs) * (values[0] + values[-1])))


def _scale(theta, loss: str, outputs: int) -> float:
    return loss_scale(loss, len(theta), np.shape(theta)[2] if np.ndim(theta) == 4 else outputs)


def check_rule(learning_rate, momentum) -> None:
    """Raise `ValueError` unless the learning rate is positive and the momentum in [0, 1)."""
    check_positive("learning_rate", learning_rate)
    if not is_number(momentum) or not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum!r}; expected a number in [0, 1).")

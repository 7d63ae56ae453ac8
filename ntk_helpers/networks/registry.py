"""The activations that are known by name."""

from functools import lru_cache

import jax
import jax.numpy as jnp

from ntk_helpers._lib.inputs import check_choice
from ntk_helpers.networks.activation import Activation
from ntk_helpers.networks.closed_forms import CLOSED_FORMS
from ntk_helpers.networks.numerical import quadrature

__all__ = ["activation_names", "get_activation", "register_activation"]

BUILT_IN = {phi.name: phi for phi in (*CLOSED_FORMS, quadrature("tanh", jnp.tanh))}
_REGISTRY = dict(BUILT_IN)


def activation_names() -> tuple[str, ...]:
    """The names that `MLP(activation=...)` knows, the package's own and then those that were registered.

    >>> activation_names()[:3]
    ('relu', 'leaky_relu', 'linear')
    """
    return tuple(_REGISTRY)


def get_activation(activation: str | Activation) -> Activation:
    """The `Activation` of that name, or the one given.

    Raises `ValueError` for an unknown name, and for an `Activation` whose function is not elementwise.

    >>> get_activation("erf")
    Activation('erf')
    """
    if isinstance(activation, Activation):
        _check_elementwise(activation)
        return activation
    check_choice("activation", activation, activation_names())
    return _REGISTRY[activation]


def register_activation(activation: Activation) -> None:
    """Make an activation known by its name, so that `MLP(activation=name)` finds it.

    A name that was registered before is given to the new one, in networks that have it too: a notebook's
    cell may run twice. Raises `ValueError` for the name of one of the package's own activations, no name, and
    a function that is not elementwise.

    >>> from ntk_helpers.networks import quadrature
    >>> register_activation(quadrature("softplus", jax.nn.softplus))
    >>> get_activation("softplus")
    Activation('softplus')
    """
    if not isinstance(activation, Activation) or not isinstance(activation.name, str) or not activation.name:
        raise ValueError(
            f"activation is {activation!r}; expected an Activation with a name, "
            "as quadrature(name, fn) gives."
        )
    if BUILT_IN.get(activation.name, activation) != activation:
        raise ValueError(f"activation {activation.name!r} is the package's own; expected another name.")
    _check_elementwise(activation)
    _REGISTRY[activation.name] = activation


@lru_cache(maxsize=256)
def _check_elementwise(activation: Activation) -> None:
    """Raise `ValueError` unless its function maps arrays of any shape to floating ones of the same shape."""
    for shape in ((2, 3), ()):
        try:
            probe = jax.eval_shape(activation.fn, jax.ShapeDtypeStruct(shape, jnp.float32))
        except Exception as error:
            probe = f"{type(error).__name__}: " + str(error).partition("\n")[0]
        if getattr(probe, "shape", None) != shape or not jnp.issubdtype(probe.dtype, jnp.floating):
            raise ValueError(
                f"activation {activation.name!r} maps shape {shape} to {probe}; "
                "expected an elementwise function."
            )

r"""The learning rates that belong to a parameterization: how one rate serves all widths."""

import jax
import jax.numpy as jnp
import optax

from ntk_helpers._lib.inputs import check_choice
from ntk_helpers.networks.mlp import MLP, check_network, check_parameters

__all__ = ["scale_by_parameterization"]


def scale_by_parameterization(net: MLP, optimizer: str) -> optax.GradientTransformation:
    r"""Updates of `net`, scaled by array so that one learning rate $\eta$ serves every width and `alpha`.

    It stands after the optimizer, whose rule it has to know: `"sgd"`, with momentum or without, moves a
    parameter by $\eta$ times its gradient, `"adam"` by $\eta$ whatever the gradient's size. In the NTK
    parameterization and in μP the gradient of the output $f = s\,z^L$, $s$ = `net.output_scale`, in any
    array of parameters has a norm of order $s$, spread over its m entries. So a step of SGD moves the output
    by $\eta s^2$, and a step of Adam, whose norm is $\eta\sqrt m$, by $\eta s\sqrt m$. Updates are divided by
    $s^2$, or by $s\sqrt m$. With the width n of all hidden layers this is

    | parameterization | SGD | Adam: hidden weights | input and output weights, hidden biases | output bias |
    | --- | --- | --- | --- | --- |
    | `"ntk"` | $1/\alpha^2$ | $1/(\alpha n)$ | $1/(\alpha\sqrt n)$ | $1/\alpha$ |
    | `"mup"` | $n/\alpha^2$ | $1/(\alpha\sqrt n)$ | $1/\alpha$ | $\sqrt n/\alpha$ |
    | `"standard"` | $1/\alpha^2$ | $1/\alpha$ | $1/\alpha$ | $1/\alpha$ |

    up to constants: numbers of inputs and outputs. In μP this is the table of Yang et al. 2022 (Table 3), for
    weights of variance 1 in place of 1/n: there a rate of SGD is multiplied by the square of a weight's
    scale, one of Adam by the scale. The rates of Adam in the NTK parameterization, worked out here, keep it
    in the kernel regime, whose limit has an operator in place of the kernel (Yang & Littwin 2023). The
    standard parameterization has one rate for everything, and no limit with it: its best rate walks away.

    Adam's `eps` has to stay below the gradients' entries, which fall as width grows. The transformation holds
    numbers alone: `train` compiles once for a sweep of learning rates.

    Raises:

    - `ValueError` for what is no network, and another `optimizer`;
    - `ValueError`, when a run starts, for parameters that are not those of `net`.

    >>> import optax
    >>> net = MLP(3, 64, parameterization="mup", alpha=8.0)
    >>> optimizer = optax.chain(optax.adam(0.01), scale_by_parameterization(net, "adam"))
    >>> state = optimizer.init(net.init(jax.random.key(0), 4))
    """
    check_network(net)
    check_choice("optimizer", optimizer, ("sgd", "adam"))

    def divisor(entries: int):
        if optimizer == "sgd":
            return net.output_scale**2
        return net.output_scale * (1.0 if net.parameterization == "standard" else entries**0.5)

    def init(params):
        weights = [leaf for leaf in jax.tree.leaves(params) if jnp.ndim(leaf) == 2]
        check_parameters(net, params, len(weights[0]) if weights else 1)
        return optax.EmptyState()

    def update(updates, state, params=None):
        return jax.tree.map(lambda u: u / divisor(u.size), updates), state

    return optax.GradientTransformation(init, update)

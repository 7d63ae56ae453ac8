"""Models of other libraries as a function of parameters and inputs, with the parameters apart.

What is no parameter (running averages, buffers, switches) is closed over: a kernel is that of the function
that the model computes now. A model in training mode is refused, as its outputs depend on the rest of a
batch or on a key.
"""

from collections.abc import Callable, Iterator

import jax
from jaxtyping import Array, PyTree

__all__ = ["from_equinox", "from_linen", "from_nnx"]

Apply = Callable[[PyTree, Array], Array]


def from_linen(module, variables: PyTree, **call) -> tuple[Apply, PyTree]:
    """`(apply, params)` of a Flax Linen module and its variables.

    The collection `"params"` is what a kernel differentiates by. All others, `"batch_stats"` for one, stay as
    they are. `call` are arguments of the module's call beside the inputs, for example `train=False`.

    Raises `ValueError`

    - for what is no Linen module, and for variables without `"params"`;
    - from `apply`, for a module that updates its state or asks for random numbers: one in training mode.

    >>> from flax import linen
    >>> module, x = linen.Dense(2), jnp.ones((3, 4))
    >>> apply, params = from_linen(module, module.init(jax.random.key(0), x))
    >>> empirical_ntk(apply, params, x).shape
    (3, 3, 2, 2)
    """
    from flax import errors, linen

    _check_kind("module", module, linen.Module, "a module of flax.linen")
    if not hasattr(variables, "keys") or "params" not in variables:
        said = list(variables) if hasattr(variables, "keys") else type(variables).__name__
        raise ValueError(f"variables is {said}; expected what module.init returns, with 'params'.")
    state = {name: kept for name, kept in variables.items() if name != "params"}

    def apply(params, x):
        try:
            return module.apply({"params": params} | state, x, **call)
        except (errors.ModifyScopeVariableError, errors.InvalidRngError) as error:
            said = str(error).partition(" (http")[0]
            raise ValueError(
                f"module is in training mode: {said} Expected an argument of its call that ends it, for "
                "example from_linen(module, variables, train=False)."
            ) from error

    return apply, variables["params"]


def from_nnx(model) -> tuple[Apply, PyTree]:
    """`(apply, params)` of a Flax NNX model.

    Variables of the kind `nnx.Param` are what a kernel differentiates by. All others stay as they are.

    Raises `ValueError` for what is no NNX model, and for one in training mode, with the path of the layer.

    >>> from flax import nnx
    >>> apply, params = from_nnx(nnx.Linear(4, 2, rngs=nnx.Rngs(0)))
    >>> empirical_ntk(apply, params, jnp.ones((3, 4))).shape
    (3, 3, 2, 2)
    """
    from flax import nnx

    _check_kind("model", model, nnx.Module, "a model of flax.nnx")
    for path, layer in nnx.iter_graph(model):
        dropping = isinstance(layer, nnx.Dropout) and layer.rate > 0 and not layer.deterministic
        averaging = isinstance(layer, nnx.BatchNorm) and not layer.use_running_average
        if dropping or averaging:
            raise _training(f"{type(layer).__name__} at {'.'.join(map(str, path))!r}", "model.eval()")
    definition, params, state = nnx.split(model, nnx.Param, ...)
    return lambda params, x: nnx.merge(definition, params, state)(x), params


def from_equinox(model, state=None) -> tuple[Apply, PyTree]:
    """`(apply, params)` of an Equinox model, which takes one example; `apply` takes a batch.

    All arrays of floating numbers are what a kernel differentiates by. A model made by
    `equinox.nn.make_with_state` has a `state`, which stays as it is.

    Raises `ValueError` for what is no Equinox model, and for one in training mode, with the layer's path.

    >>> import equinox
    >>> apply, params = from_equinox(equinox.nn.MLP(4, 2, width_size=8, depth=1, key=jax.random.key(0)))
    >>> empirical_ntk(apply, params, jnp.ones((3, 4))).shape
    (3, 3, 2, 2)
    """
    import equinox

    _check_kind("model", model, equinox.Module, "a model of Equinox")
    for path, layer in _layers_with_a_mode(model):
        if not layer.inference and getattr(layer, "p", 1) != 0:
            where = f"{type(layer).__name__} at {jax.tree_util.keystr(path)!r}"
            raise _training(where, "equinox.nn.inference_mode(model)")
    params, rest = equinox.partition(model, equinox.is_inexact_array)

    def apply(params, x):
        whole = equinox.combine(params, rest)
        if state is None:
            return jax.vmap(whole)(x)
        return jax.vmap(lambda each: whole(each, state)[0], axis_name="batch")(x)

    return apply, params


def _layers_with_a_mode(model) -> Iterator[tuple]:
    has_mode = lambda node: hasattr(node, "inference")
    leaves, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=has_mode)
    return ((path, leaf) for path, leaf in leaves if has_mode(leaf))


def _check_kind(name: str, given: object, kind: type, expected: str) -> None:
    if not isinstance(given, kind):
        raise ValueError(
            f"{name} is a {type(given).__module__}.{type(given).__qualname__}; expected {expected}."
        )


def _training(where: str, remedy: str) -> ValueError:
    return ValueError(f"the model is in training mode: {where}. Expected one that is not: {remedy}.")

"""What older versions of JAX, down to the floor in pyproject.toml, call by another name.

Each name says which version brought the new one; it goes when the floor reaches that version.
"""

import jax
import jax.extend.core
from jax.extend.core import JaxprEqn

__all__ = ["bind", "enable_x64", "set_current_trace"]

if jax.__version_info__ >= (0, 8):
    from jax import enable_x64  # noqa: TID251
else:
    from jax.experimental import enable_x64

if jax.__version_info__ >= (0, 10):
    from jax.extend.core import set_current_trace  # noqa: TID251
else:
    from jax._src.core import set_current_trace  # jax.core has it too, and warns from 0.8.2 on


def bind(eqn: JaxprEqn, values: list):
    """What the primitive of an equation makes of its inputs: an array, or a list of them."""
    params, functions = eqn.primitive.get_bind_params(eqn.params), ()
    if jax.__version_info__ < (0, 9, 2):
        functions, params = params  # functions among the parameters came apart from them, and first
    return eqn.primitive.bind(*functions, *values, **params)

"""Arrays whose shards are part of their type, as those of `jax.make_mesh` are since JAX 0.9."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, get_abstract_mesh, reshard
from jaxtyping import Array

__all__ = ["automatic"]


def automatic(x: Array) -> Array:
    """Return an array whose shards are the compiler's affair.

    With explicit axes a product of two arrays that are sharded by rows is an error, and every operation of
    ours, and of the networks that we are given, would have to name its result's shards. The same shards on
    the same devices with automatic axes need no word. Where the mesh cannot be exchanged, inside `jit` and
    under `jax.set_mesh`, each device gets the whole array.
    """
    sharding = getattr(getattr(x, "aval", None), "sharding", None)
    if not any(axis is not None for axis in getattr(sharding, "spec", ())):
        return x
    if isinstance(x, jax.core.Tracer) or not get_abstract_mesh().empty:
        return reshard(x, NamedSharding(sharding.mesh, PartitionSpec()))
    mesh = x.sharding.mesh
    types = (AxisType.Auto,) * len(mesh.axis_names)
    automatic = Mesh(mesh.devices, mesh.axis_names, axis_types=types)
    return jax.device_put(x, NamedSharding(automatic, x.sharding.spec))

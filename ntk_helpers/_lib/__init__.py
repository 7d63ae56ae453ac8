"""What every room uses: checks of arguments, float64 on the host, blocks and memory, progress, older names
of JAX. Nothing here knows of kernels."""

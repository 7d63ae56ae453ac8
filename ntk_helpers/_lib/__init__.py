"""What every room uses: checks of arguments, float64 on the host, blocks, progress. Nothing here knows of
kernels."""

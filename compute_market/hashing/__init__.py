"""BLAKE3-256 of slices: the same bytes give the same digest on every backend."""

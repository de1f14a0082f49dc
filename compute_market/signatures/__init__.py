"""Signatures that hold against quantum computers: ML-DSA-65 (FIPS 204), keys, what is signed."""

"""Recordings handed over with proof: whether their bytes are as sealed, the package, and what verifies it."""

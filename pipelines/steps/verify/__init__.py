"""Verification, which only reads: the bucket holds everything that the archive lists, as sealed, and nothing else."""

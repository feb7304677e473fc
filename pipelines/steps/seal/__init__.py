"""Sealing: what a date holds is written down and sealed."""

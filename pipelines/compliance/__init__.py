"""Compliance: who had access to what."""

"""Pulls: what the source reports, kept as rows of a date."""

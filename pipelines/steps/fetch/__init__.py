"""Fetching: due recordings are fetched, verified and stored."""

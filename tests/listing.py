"""Reads the lists that the checks show in the UI."""

import re


def listed(markdown: str) -> list[dict[str, str]]:
    """Return the lines of a list, each as its names and values."""
    return [dict(re.findall(r"(\w+) `([^`]*)`", line)) for line in markdown.splitlines()]

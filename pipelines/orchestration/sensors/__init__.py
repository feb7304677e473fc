"""The sensors: they start runs without being asked, and report runs that ended."""

"""The reports: how they are asked for and read."""

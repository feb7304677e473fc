"""The reports: how they are requested and read."""

"""The source's limits on requests, shared by all processes."""

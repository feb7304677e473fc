"""How many requests the source permits, shared by all processes."""

"""Links: the recordings that rows name are registered with a state."""

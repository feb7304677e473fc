"""What the rows name, registered as recordings with a state."""

"""The source: how to log in to RingCX, send requests within its limits, and read responses without trusting them."""

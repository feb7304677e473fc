"""The web page on which people find calls and hear them. It runs in its own process and never writes to recordings."""

"""The web page on which people find calls and hear them. A process of its own; it never writes to recordings."""

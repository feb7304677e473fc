"""What the checks of a date look at."""

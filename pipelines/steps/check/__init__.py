"""The checks of a date and of all dates."""

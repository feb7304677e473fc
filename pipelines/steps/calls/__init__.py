"""The table that people search: one row for each recording, and one for each call without a recording."""

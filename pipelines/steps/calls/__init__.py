"""The table that people search: one row for each recording, and for each call without one."""

"""What the source says, kept as rows of a date."""

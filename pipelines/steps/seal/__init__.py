"""What a date holds, written down and sealed."""

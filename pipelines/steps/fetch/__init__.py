"""What is due: fetched, verified, stored."""

"""What starts runs without being asked, and what reports runs that ended."""

"""Connection checks: everything that a run needs must answer, and give it the permissions it needs."""

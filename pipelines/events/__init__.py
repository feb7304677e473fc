"""End Call Events: a receiver that RingCX posts to, and the files in which it keeps them. No Dagster, no ledger."""

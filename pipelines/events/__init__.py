"""End Call Events: a receiver to which RingCX posts, and the files that keep the events. No Dagster, no ledger."""

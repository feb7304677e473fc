"""The backfill plan: what a backfill would take. It reads the ledger and nothing else, and invents no number."""

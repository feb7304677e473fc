"""What a backfill would take, before it runs. Reads the ledger and nothing else; invents no number."""

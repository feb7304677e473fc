"""What a backfill would take, before it runs: requests, hours, recordings, bytes, money, and what is urgent.

Reads the ledger and nothing else; writes nothing, asks the source nothing. No number is invented: what the ledger has
no history for is unknown, and said to be.
"""

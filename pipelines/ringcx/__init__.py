"""The source: how RingCX is logged into, asked politely, and read without believing it.

No Dagster, no S3, no ledger and no environment variable: callers pass in what is needed.
"""

"""The archive proved: everything that it says it holds is there, as it was sealed, and nothing else is.

Reads the bucket and the ledger again and writes to neither.
"""

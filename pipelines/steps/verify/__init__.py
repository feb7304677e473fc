"""Verification: everything that the archive says it holds is there, as it was sealed, and nothing else is.

It reads the bucket and the ledger again and writes to neither.
"""

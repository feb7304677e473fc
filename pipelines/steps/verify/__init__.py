"""Verification: the bucket holds everything that the archive lists, as it was sealed, and nothing else.

It reads the bucket and the ledger again and writes to neither.
"""

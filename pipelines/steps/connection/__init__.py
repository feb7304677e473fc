"""Check that everything a run needs answers, with the rights it needs.

Every request to the source takes a permit of its limit. Nothing that the source sends is kept; the bucket and the
ledger's place each get a tiny object under `probes/`.
"""

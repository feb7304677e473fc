"""Connection checks: everything that a run needs must answer, and give it the permissions it needs.

Every request to the source takes a permit of its limit. Nothing that the source sends is kept; the bucket and the
ledger each get a tiny object under `probes/`.
"""

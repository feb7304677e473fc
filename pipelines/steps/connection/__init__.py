"""Does everything answer that a run needs, with the rights it needs? One line each, with what to do where it does not.

Every request to the source takes a permit of its limit. Nothing of what the source sends is kept; in the bucket and in
the ledger's place a tiny object is put under `probes/`.
"""

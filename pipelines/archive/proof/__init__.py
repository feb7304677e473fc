"""Proofs of the archive: manifests, their chain, signatures and attestations."""

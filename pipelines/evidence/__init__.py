"""Evidence: whether recordings are as they were sealed, packages of recordings with proofs, and their verification."""

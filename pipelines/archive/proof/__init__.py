"""What proves the archive: manifests, their chain, signatures and attestations."""

"""The archive: recordings, manifests and the catalog in S3."""

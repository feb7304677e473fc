"""The archive: recordings, manifests and the catalog in S3.

Here belongs what an object is called (`keys`), what counts as a recording (`wav`), how bytes get into the bucket and
are proven to have arrived (`bucket`, `transfer`), and the sealed list of a day (`manifest`). Not here: where
recordings come from, what is remembered about them, and Dagster.
"""

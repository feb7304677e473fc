"""The archive's memory in Parquet: what was seen, and what became of each recording. No Dagster, no HTTP, no RingCX."""

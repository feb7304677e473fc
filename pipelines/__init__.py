"""How the archive runs: the source in `ringcx`, the memory in `ledger`, the bucket in `archive`; around it, Dagster."""

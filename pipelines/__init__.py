"""How the archive runs: the source in `ringcx`, the memory in `ledger`, the bucket in `archive`; around it, Dagster."""

__version__ = "0.2.0"

"""The archive's code: RingCX in `ringcx`, its memory in `ledger`, S3 in `archive`; Dagster is wired around these."""

__version__ = "0.2.0"

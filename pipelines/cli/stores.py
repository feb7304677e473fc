"""Opens the ledger and the bucket that the settings name, for the commands that need no log-in to RingCX."""

from pipelines import storage
from pipelines.archive.bucket import Bucket
from pipelines.archive.client import make_s3_client
from pipelines.cli.options import Outside
from pipelines.ledger.parts import LedgerParts
from pipelines.ledger.store import Ledger
from pipelines.settings import StorageSettings


def open_stores(
    settings: StorageSettings, outside: Outside, *, max_connections: int = 16
) -> tuple[Bucket, Ledger, LedgerParts]:
    """Return the bucket, the ledger, and the same ledger as the files that it is made of."""
    client = outside.s3 or make_s3_client(max_connections=max_connections, options=settings.s3_options)
    files = storage.ledger_files(settings, client)
    bucket = Bucket(client, settings.archive_bucket, settings.archive_prefix)
    return bucket, Ledger(files, clock=outside.clock), LedgerParts(files)

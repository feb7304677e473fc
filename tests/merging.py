"""Makes merged ledger parts exactly as version 0.1.0 made them; the archive only reads them now."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

RECORD = "ringcx-archive/merged/1"


def merged_part(parts: Mapping[str, bytes], *, merged_at: datetime | None = None) -> tuple[str, bytes]:
    """Return name and bytes of what 0.1.0 made of these parts of one folder; some of them may be merged ones."""
    tables: list[pa.Table] = []
    replaced: list[dict[str, Any]] = []
    between: list[dict[str, Any]] = []
    for name, data in sorted(parts.items()):
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            tables.append(file.read().replace_schema_metadata(None))
            record = (file.metadata.metadata or {}).get(RECORD.encode())
        itself = {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "lines": tables[-1].num_rows}
        if record is None:
            replaced.append(itself)
        else:
            known = json.loads(record)
            replaced += known["parts"]
            between += [*known["between"], itself]
    schema = pa.unify_schemas([table.schema for table in tables])
    joined = pa.concat_tables([schema.empty_table(), *tables], promote_options="default")
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(joined.select(schema.names).cast(schema))
        at = (merged_at or datetime.now(UTC)).isoformat()
        writer.add_key_value_metadata({RECORD: json.dumps({"merged_at": at, "parts": replaced, "between": between})})
    folder = replaced[0]["name"].rpartition("/")[0]
    last = max(part["name"].rpartition("/")[2][:26] for part in replaced)
    digest = hashlib.sha256("\n".join(f"{part['name']} {part['sha256']}" for part in replaced).encode()).hexdigest()
    return f"{folder}/{last}-{len(replaced)}-{digest[:16]}.parquet", sink.getvalue()

"""The peer of `ledger.py`: what scripts do with a report. `python benchmarks/pandas_script.py FOLDER BODY…`

Reads all as text, merges on all columns with what is there, and writes one growing Parquet file again.
"""

import json
import sys
import time
from pathlib import Path

import pandas as pd
from machine import peak_mb

file = Path(sys.argv[1], "rows.parquet")
started, cpu = time.perf_counter(), time.process_time()
pulled = pd.concat([pd.read_csv(body, dtype=str, keep_default_na=False) for body in sys.argv[2:]])
seen = pd.read_parquet(file) if file.exists() else pulled.iloc[:0]
merged = pulled.merge(seen.drop_duplicates(), how="left", indicator=True, on=list(pulled.columns))
fresh = merged[merged["_merge"] == "left_only"].drop(columns="_merge")
pd.concat([seen, fresh]).to_parquet(file)
print(
    json.dumps(
        {
            "seconds": round(time.perf_counter() - started, 2),
            "cpu": round(time.process_time() - cpu, 2),
            "peak_mb": peak_mb(),
            "fresh": len(fresh),
        }
    )
)

"""The assets, one module per family: each reads, calls a step of `pipelines` and reports the result. Jobs: `upkeep`."""

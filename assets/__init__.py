"""The assets, one module per family. Each asset reads, calls a step of `pipelines`, and reports the outcome."""

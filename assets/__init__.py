"""What exists, one module per asset family. Each asset reads, calls a step of `pipelines`, and reports the outcome."""

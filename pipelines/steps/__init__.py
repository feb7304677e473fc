"""The steps of a run, a package for each stage: they tie the three cores together, without Dagster or environment."""

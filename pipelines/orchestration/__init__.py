"""The Dagster-facing parts: resources, partitions, jobs, schedules, sensors and alerts."""

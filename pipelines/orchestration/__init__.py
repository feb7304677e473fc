"""The Dagster-facing parts: resources, jobs, schedules, sensors and alerts."""

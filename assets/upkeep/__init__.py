"""The jobs that are not assets, because they make no data of a date, one module per job."""

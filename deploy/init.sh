#!/bin/sh
# Once at each deployment, with the webserver's environment, before the daemon and the workers begin:
# Dagster's tables, and the limits of the pools, which live in the database and in no file.
# Without these limits two workers that ask for the same new pool at once can fail one run of the two.
set -eu
dagster instance migrate
dagster instance concurrency set ringcx_reports "${POOL_REPORTS:-8}"
dagster instance concurrency set ringcx_metadata "${POOL_METADATA:-8}"
dagster instance concurrency set ringcx_media "${POOL_MEDIA:-8}"

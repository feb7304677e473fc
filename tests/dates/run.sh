#!/usr/bin/env bash
# Runs the tests that ask what day it is on other days than today, one after the other (Linux, with a C compiler).
#
#   tests/dates/run.sh                      all twenty dates, every folder that knows dates (hours)
#   tests/dates/run.sh tests/pipeline/test_events.py -x      the same dates, these tests
#   DATES="2028-02-29T23:59:30" tests/dates/run.sh           this date
#
# The clock is shifted, not stopped, by the same number of seconds in every process; waiting takes as long as ever.
set -euo pipefail
cd "$(dirname "$0")/../.."

TWENTY="
2026-11-30T12:00:00  2026-12-01T00:00:05  2026-12-31T23:59:30  2027-01-01T00:00:05  2027-01-02T09:00:00
2027-01-31T18:00:00  2027-02-28T23:59:30  2027-03-01T06:00:00  2027-03-14T06:59:30  2027-03-16T12:00:00
2027-03-28T00:59:30  2027-03-30T21:30:00  2027-10-31T00:59:30  2027-11-02T03:00:00  2027-11-07T05:59:30
2027-11-09T12:00:00  2028-02-29T12:00:00  2028-02-29T23:59:30  2028-03-02T12:00:00  2028-12-31T23:58:00
"
# rclone, whose clock cannot be shifted, has no key here, so a wrong one is not refused.
NO_KEY="
--deselect tests/pipeline/verify/test_command.py::test_settings_that_are_wrong_are_one_sentence_and_code_2
--deselect tests/pipeline/test_check_connection.py::test_wrong_keys_are_refused_and_never_shown
--deselect tests/sandbox/test_s3.py::test_a_wrong_secret_is_refused
--deselect tests/archive/test_bucket.py::test_wrong_credentials_are_named_and_not_shown
--deselect tests/sandbox/test_main.py::test_both_servers_run_in_the_foreground_and_end_on_a_signal
"
library=$(mktemp --suffix .so)
trap 'rm -f "$library"' EXIT
cc -shared -fPIC -O2 -Wall -o "$library" tests/dates/shifted_clock.c -ldl
[ $# -gt 0 ] || set -- tests/sandbox tests/ledger tests/events tests/pipeline tests/dagster tests/cli tests/docs tests/evidence tests/browser \
    tests/ringcx tests/strict tests/hostile

red=""
for at in ${DATES:-$TWENTY}; do
    shift_s=$(($(date -u -d "$at" +%s) - $(date -u +%s)))
    printf '\n== %s UTC\n' "$at"
    env LD_PRELOAD="$library" SHIFT_S="$shift_s" SHIFT_PYTHON="$PWD/.venv/bin/python" SHIFT_PROXY="$PWD/tests/dates/rclone.py" \
        .venv/bin/python -m pytest -q -p no:cacheprovider $NO_KEY "$@" || red="$red $at"
done
[ -z "$red" ] || { echo "Red on:$red" >&2; exit 1; }

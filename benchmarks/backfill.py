"""A backfill over several machines, with figures: `python benchmarks/backfill.py [--dates N] [--lose WHAT]`.

A daemon and Celery workers with nothing in common but PostgreSQL, RabbitMQ and S3; a worker, or what `--lose` says, is
lost on the way. Needs RabbitMQ (`apt-get install rabbitmq-server`). Fails only if something was lost, doubled or wrong,
never on time.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import get_args

from sandbox.cluster import BackfillPlan, Lost, run
from sandbox.postgres import LocalPostgres


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dates", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--calls", type=int, default=2, help="most calls a date; each has one to three recordings")
    parser.add_argument("--limit", default="20/10", help="of the reports and of the log-in, over all machines")
    parser.add_argument("--lose", choices=get_args(Lost), default="worker", help="what is lost on the way")
    options = parser.parse_args()
    plan = BackfillPlan(
        dates=options.dates,
        workers=options.workers,
        calls_per_date=(max(1, options.calls // 2), options.calls),
        limit=options.limit,
        lose=options.lose,
    )
    with tempfile.TemporaryDirectory(prefix="backfill-") as folder, LocalPostgres() as postgres:
        report = run(plan, Path(folder), postgres, lambda line: print(f"  {line}", flush=True))
    rows: dict[str, object] = {
        "dates": plan.dates,
        "recordings held, exact bytes": report.held,
        "of": report.recordings,
        "megabytes": round(report.size / 1e6, 1),
        "seconds, first run to last": round(report.seconds),
        "dates a minute": round(60 * plan.dates / report.seconds, 1),
        "media requests": report.media_requests,
        "recordings sent whole twice": report.fetched_twice,
        "requests over a limit": sum(report.violations.values()),
        "runs": dict(report.runs),
        "tasks by worker": dict(report.by_machine),
    }
    if plan.lose != "nothing":
        rows |= {
            "lost: that run had ended after, s": round(report.noticed_s),
            "its date archived after, s": round(report.resumed_s),
        }
    print()
    for name, value in rows.items():
        print(f"{name:<34}{value!s:>8}")
    for problem in report.problems:
        print(f"PROBLEM: {problem}")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())

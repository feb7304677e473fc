"""Chaos, with figures: `python benchmarks/chaos.py [--seed N] [--calls N] [--kills N]`.

Prints what was injected and what was survived. Fails only if something was lost, doubled or wrong, never on time.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from sandbox.chaos import ChaosPlan, run


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls", type=int, default=400, help="calls a date; each has one to three recordings")
    parser.add_argument("--kills", type=int, default=5, help="run workers killed with SIGKILL")
    options = parser.parse_args()
    plan = ChaosPlan(seed=options.seed, calls_per_date=options.calls, kills=options.kills)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        report = run(plan, Path(folder), lambda line: print(f"  {line}", flush=True))
    print(f"\n{'injected':<34}{'times':>8}")
    for name, number in sorted(report.injected.items()):
        print(f"{name:<34}{number:>8}")
    print(f"\n{'survived':<34}")
    print(f"{'recordings held, exact bytes':<34}{report.held:>8}")
    print(f"{'of':<34}{report.recordings:>8}")
    print(f"{'media requests':<34}{report.media_requests:>8}")
    print(f"{'readings of the ledger meanwhile':<34}{report.ledger_reads:>8}")
    print(f"{'runs':<34}  {dict(report.runs)}")
    print(f"{'seconds':<34}{report.seconds:>8.0f}")
    for problem in report.problems:
        print(f"PROBLEM: {problem}")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())

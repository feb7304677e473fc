"""A program that presses Ctrl-C for its parent, and does not end on Ctrl-C itself."""

from __future__ import annotations

import os
from pathlib import Path


def ignores_ctrl_c(folder: Path) -> Path:
    """Write the program into `folder`."""
    program = folder / "stubborn"
    program.write_text(f"#!/bin/sh\ntrap '' INT\necho $$ > '{folder}/pid'\nsleep 0.5\nkill -INT $PPID\nexec sleep 60\n")
    program.chmod(0o700)
    return program


def is_gone(folder: Path) -> bool:
    """Say whether the program that was started from `folder` has ended."""
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except ProcessLookupError:
        return True
    return False

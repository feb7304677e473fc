"""The counts of a pull that brought no rows."""

from __future__ import annotations

from typing import Final

NO_ROWS: Final = dict.fromkeys(("size", "rows", "new", "changed", "unchanged", "vanished", "with_link"), 0)

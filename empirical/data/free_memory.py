"""How much memory is free, so that what would not fit is refused before it is allocated."""

from __future__ import annotations

import math
import os


def free_memory() -> float:
    """Bytes that are free on this machine; infinite where it does not say."""
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return math.inf

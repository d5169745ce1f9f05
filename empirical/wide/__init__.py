"""Networks of any width, exact in law: hidden weights are sampled only where products need them.

Read in this order: columns.py (what M neurons hold), implicit.py (a Gaussian matrix that never
exists), weight.py (its updates), network.py (one step), measure.py (what is measured).
"""

from empirical.wide.measure import measure_wide
from empirical.wide.streaming import Streaming

__all__ = ["Streaming", "measure_wide"]

"""Networks of any width, exact in law: hidden weights are sampled only where products need them.

Read in this order: columns.py (what M neurons hold), implicit.py (a Gaussian matrix that never
exists), weight.py (its updates), network.py (one step), measure.py (what is measured). Updates are
made in update.py (by Gram matrices), rows.py (entry by entry) or sample.py (some rows, where own
updates are all that is asked), as paths.py decides of what follows.py says of a tree; ascent.py
looks at moved weights, for rules that looks.py takes apart; tiles.py, forms.py and places.py say
what a tile of an update is made of, passes.py streams neurons through workers.
"""

from empirical.wide.measure import WIDE_PROBE, measure_wide, outputs_wide
from empirical.wide.streaming import MEMORY_LIMIT, Streaming

__all__ = ["MEMORY_LIMIT", "WIDE_PROBE", "Streaming", "measure_wide", "outputs_wide"]

"""Networks of any width, exact in law: hidden weights are sampled only where products need them.

neurons         columns (what M neurons hold) passes (streamed through workers) activations
weights         implicit (a Gaussian matrix that never exists) weight (and its updates)
noise           noise (streams) seeds (of many at once) philox (bits that any device makes alike)
a network       wide_network (forward, backward, step) wide_steps (what is measured)
look_ahead (at moved weights)
updates         method decides which way: span_update (by Gram matrices), rows (entry by entry),
sample (some rows, where own updates are all that is asked)
on tiles        tiles whole_layer_values strips
the machine     streaming workspace (memory that is used again)
"""

from empirical.wide.streaming import MEMORY_LIMIT, Streaming, usual_memory
from empirical.wide.wide_steps import WIDE_PROBE, measure_wide, outputs_wide

__all__ = [
    "MEMORY_LIMIT",
    "WIDE_PROBE",
    "Streaming",
    "measure_wide",
    "outputs_wide",
    "usual_memory",
]

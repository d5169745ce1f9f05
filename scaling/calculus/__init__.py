"""The order calculus: a rule read as sizes instead of numbers. Sound or silent.

the way in   read: one case per kind of node; context: the layer that is read; values: what is
             known of a value; directions: how much of it lies where
inference    leaves scalars rank entrywise weight_entries means sums cancellation
             centred shared_direction spectra pieces polar_factor matrix_norms
             singular_values rotation rounding_noise extremes
functions    calls: from the row of a function to its inference; entry_functions averages
             inner_product layer_sums per_sample_squares moved_weights
refusals     instead: what could stand in the place of a node
a step       output_change (what dW does to its layer), readback (and to the layers above)
"""

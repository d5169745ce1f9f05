"""The order calculus: a rule read as sizes instead of numbers. Sound or silent.

the way in   read: one case per kind of node; context: the layer that is read; values: what is
             known of a value
inference    leaves scalars entrywise clipping means sums shared_direction averages spectra
             inner_product layer_sums rotation per_sample_squares moved_weights
a step       output_change (what dW does to its layer), readback (and to the layers above)
"""

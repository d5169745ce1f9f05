"""One measurement: a rule under given exponents, on a network of one width, with one seed.

the way in     measurement; trial: what is asked; measured_sizes: what is found
how            training dense_steps calibration; parametrize: from exponents to numbers
the machine    machine widths store (finished measurements are kept; record: as what)
"""

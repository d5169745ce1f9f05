"""The catalogue: one file per optimizer family, in terms of scaling/.

    gradient clipping adaptive adaptive_relatives signs   first-order and entrywise rules
    factored row_norms hamiltonian                    one number a row or a column
    norms polar layerwise                             norms, polar factors, trust ratios
    kfac shampoo rotated                              curvature and eigenbases
    sharpness                                         moved weights

Each holds the mathematics with its references, and `Optimizer` declarations (declaration.py): the
update as text, never an exponent. catalogue.py finds them; a new file needs no other line.
outside.py names optimizers that are no rule, and what each needs.
ready_made.py has recipes as libraries run them; recipes.py reads recipes, whose rules are such
names.
"""

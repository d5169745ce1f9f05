"""The catalogue: one file per optimizer family, in terms of scaling/.

    gradient adaptive factored layerwise norms        first-order and entrywise rules
    kfac shampoo rotated                              curvature and eigenbases
    hamiltonian sharpness                             momentum by row and column, moved weights

Each holds the mathematics with its references, and `Optimizer` declarations (declaration.py): the
update as text, never an exponent. catalogue.py finds them; a new file needs no other line.
ready_made.py has recipes as libraries run them; recipes.py reads recipes, whose rules are such
names.
"""

"""Sizes: exponents of the growing width, what they are the size of, and the lines that say why.

scale          Theta(M^x): products, powers and sums of sizes, decided by what is known of symbols
piecewise      exponents in one symbol, in a canonical form
plane          exponents in two symbols: the lines at which they bend or change sign
affine_cases   maxima case by case, linear equations, and whether inequalities can hold
derivation     the named rules of inference, and a derivation as a tree of steps
errors         every refusal: found, needed, do this
in_notebook    results that notebooks show, by the printers of report/
"""

"""A rule in numbers: the twin of scaling/calculus, on the tensors of one layer.

the way in        interpreter: one case per kind of node; algebra: sums, products, functions
what a value is   layer_values square_matrices rotated_values eigenvectors sample_moments
what a layer has  layer_matrices basis layer_samples capture
training by it    factored_update state moved_gradient optimizers
"""

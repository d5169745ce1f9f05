"""A rule in numbers: the twin of scaling/calculus, on the tensors of one layer.

the way in        interpreter: the recursion; operators: one row each; algebra: what they do
what a value is   layer_values square_matrices rotated_values eigenvectors sample_moments
what a layer has  layer_matrices matrix_axes basis layer_samples capture
training by it    factored_update state moved_gradient optimizers
"""

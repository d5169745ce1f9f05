"""The rule language: an optimizer's update, written once, as a tree that interpreters read.

what there is      operators (one row each) operand_shapes shapes symbols
a rule             tree language named_parts parser rule; foreign_spellings: code of torch
a tree, rewritten  rewrites spellings like_terms diagonal_blocks literal_dampings
a tree, analysed   scalings (multiples of G) symmetric (square matrices) bounded_quotients
                   eigenbases (what may be rotated) ascents (gradients at moved weights)
                   dependence (what a value follows from) weight_term (dW = U + beta W)
                   estimable_sums schedule (how a rule is read part by part)
"""

"""Tune small, train large: the numbers of a large model from those of a small one.

making           the plan of a model, a recipe, two sizes and what was tuned at the smaller one
planned_axes     each axis derived alone; which tensor at the base stands for one of the target
planned_numbers  from exponents and what was tuned to numbers
planned_changes  factors of the code, in all modules of the target
plan             the result: its table, its file, and what it does to a model
planned_tensors  the numbers of one tensor, and a factor of the code, as data
planned_start    weights at the start
torch_groups     plain parameter groups of torch, as few as there are different numbers
code_factors     factors of the code, changed by hooks
"""

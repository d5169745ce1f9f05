"""The coordinate check of a user's own model: of a plan, of a rule, or of what they do today.

checking        the check: what is trained, at which sizes, and what every node and tensor may do
needed          what is asked of a node and of a tensor, after one step and after several
torch_steps     steps of plain torch at one size and seed: the user's optimizer on the user's model
own_optimizer   the optimizer of a user's file, and whether it takes the groups of a plan
grown_model     the model along an axis, and its steps by an optimizer or by rules
planned_models  the numbers of a plan at each size of an axis
composing       factors that an optimizer applies by itself, and a plan that leaves them out
remedies        the tensors, factors and lines to change where nodes or tensors do not agree
"""

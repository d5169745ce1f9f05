"""A user's own model: what must neither grow nor vanish with the width, measured.

what to set        model_scales: numbers for every tensor, by its use in the graph;
                   initialise: weights at the start, drawn or left
how it is trained  rule_optimizer: any rule, or a recipe, for any model that can be traced
what it does       coordinate_check: the check over widths, with verdicts; model_trial: one step at
                   one width; probe: a model as it is looked at, modules watched, buffers still
"""

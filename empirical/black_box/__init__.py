"""Optimizers that are classes of someone's library: what they do, beside what a rule does.

optimizer_class   found by name, built on tensors, asked for a step
two_steps         the first steps of an optimizer, and those of a rule in its place
own_updates       what a step does to the output of each layer, on growing chains
equal_rules       the rules that an optimizer equals
probed_optimizer  all of that, and the rates that follow
handed_over       a recipe made of it
seen_batch        optimizers of a module, whose batch a library of curvature is shown
through_asdl      those of asdfghjkl
through_curvlinops  those of curvlinops
atlas_rows        classes of libraries, and the rule that each is held against
atlas             all of them measured beside the theory, as a page
"""

"""From conditions to exponents, and from exponents to what they mean.

conditions     what is asked of a network as it grows
derive         the conditions solved in order: initialisation radii damping learning_rate decay,
               later_step; by elimination (equations); solution: what it answers
alternatives   regimes, and those that decide an exponent; crossing_widths: up to where
               the lesser term is the larger one
offers         an accepted rule in the place of a refused one
predict        one step under any exponents; one_step: the alignment that it has
inverse        exponents that make derived ones what is required; asked_network: on a chain
               or a model
phases         the regime over two exponents: regions, and boundaries as formulas
symmetry       when two tables describe the same training; equivalence: compare two optimizers
graph_solution   the same for every tensor of any graph, with the node that binds: tensor_rates
               in both states, code_changes for factors of the code, graph_assumptions;
               graph_regimes: terms that dominate
batch_rule     powers of the batch, derived: rates, dampings and decays
sourced_powers powers of the batch and the number of samples, from the literature
presets        parametrizations and alignments by name
"""

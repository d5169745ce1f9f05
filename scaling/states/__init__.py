"""The network in its states: at the start, after one step, at moved weights.

problem       a rule in a setting, and a table of exponents
data_numbers  numbers of samples, classes and features, where they decide an update
network_state the network at one moment: sizes, what a rule sees, how changes are carried upwards
start         sizes of h, delta and W at initialisation
second_step   sizes once every layer's weights are W + dW_1
graph_passes  sizes of any graph in three passes, one built on the other: graph_structure
              graph_forward graph_cotangents, and how much of a change is borne
critical_chain   blocks in a row without a residual sum, and how changes grow along them
moved_state   the two states of a graph: at the start, and every tensor at W + dW
tensor_uses   the use, fans, h and delta of a tensor in a graph, as a rule sees them
picked_matrices  matrices of a table that an index picks, such as experts: weights still
tensor_kinds  hidden matrices, embeddings, readouts, gains, biases: what recipes select by
graph_lines   why a node of a graph has its size, line by line
ascent        sizes at W + X, for sharpness-aware minimization, and the radius that it needs
"""

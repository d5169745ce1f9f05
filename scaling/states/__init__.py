"""The network in its states: at the start, after one step, at moved weights.

problem       a rule in a setting, and a table of exponents
network_state the network at one moment: sizes, what a rule sees, how changes are carried upwards
start         sizes of h, delta and W at initialisation
second_step   sizes once every layer's weights are W + dW_1
graph_passes  sizes of any graph: forward, cotangents back, how much of a change is borne
ascent        sizes at W + X, for sharpness-aware minimization, and the radius that it needs
"""

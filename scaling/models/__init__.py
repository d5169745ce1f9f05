"""The network as data: its layers, how their sides grow, and what a user fixes of them.

chain         the chain of dense layers: what it is made of, and how its sides grow
batch         numbers of samples, classes and features, and the directions that they leave
layer_sizes   sizes of h, delta and W in every layer: all that a rule sees of a network
alignment     how updates meet what they act on, where that is assumed instead of derived
graph         any network: operations on tensors whose axes grow, as a tracer or a few lines make it
terms         a value as a sum of terms, and how its entries add up along each axis
operations    what each operation does to sizes: the table
node_functions   activations, by their behaviour at zero and at infinity
building      a few lines make a graph
architectures     ready-made networks
recipe        what trains what: groups of tensors, by kind or name, each with a rule
recipe_text   the same from text or a TOML file
settings      exponents and symbols that a user fixes, as key=value
"""

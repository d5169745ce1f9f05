"""The operations of a graph, as they act on sizes: one row an operation, four readings.

    start      the value of the result, from those of the inputs
    change     what a small change of one input makes of the result
    cotangent  the adjoint of that: what a cotangent of the result makes of one input
    bears      how far an input may move before the operation works at another point than it did

All of them are made of `contract` (terms.py): CLT where a random sign makes the terms of a sum
independent, LLN where they share it or have a mean. A file a family:

    row             what a row is, and how operands are written
    products        contract, convolve, multiply, divide; what they do with the axes of a weight
    addition        add, subtract, expand
    elementwise     apply, power, select, identity, discrete
    reductions      reduce, accumulate, softmax, normalise, pool, top_k, sort
    rearrangements  reshape, permute, slice, concatenate, gather, scatter, ...
    objectives      cross_entropy, mean_squared_error
    table           all rows by name

What an operation bears: linear ones anything, since what they pass on is judged further up. A
function that has a scale of its own (activations, softmax, the loss) bears a change of order one,
or of the size of its input; a normalisation the size of its input, as it has no other scale; a
product with something that also moves likewise, so that products of two changes stay below.

What has no row is refused, by its name and line.
"""

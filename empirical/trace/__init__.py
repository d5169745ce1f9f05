"""A user's model, read: from a torch module at a few sizes to a graph of scaling/models.

the way in   read_model: a file and an axis to a graph
             trained: the same under a recipe, which groups its tensors and freezes some
a file       model_file (build, batch, loss) given_model (the same, handed over in Python)
             starts (how its tensors start) uses (where a tensor meets data)
a list       export (torch's operations at one size) kept_state (models that it refuses)
             aligned (at all sizes, side by side)
             fold (blocks that repeat) growth (a number's exponent from its values)
names        wrapped_names (of tensors and modules, under torch.compile, DDP and the like)
in numbers   execute (the same operations on the CPU, node by node)
a weight     weight_rows (the equation of each call) weight_tracker (calls that meet it, or a view)
             weight_columns (its inputs and cotangents) use_capture (those of a model in training)
a graph      lowering, with a row for every operation in aten_algebra aten_shapes aten_layers;
             gains_of_weights (a gain on rows of a weight is one on what the weight makes)
"""

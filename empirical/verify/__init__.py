"""Theory against measurement: predicted | measured [interval] | verdict.

subject               what is measured: a rule under exponents
campaign              which rules are measured how: every width and seed, none of them twice
single                one measurement, for the command line
verification          verdicts, layer by layer
derivation_lines      every line of a derivation beside its measurement
measured_alignments   the alignment of real training over steps
batch_sweep           own updates at growing batches of one width, beside derived powers
graph_verification    every node and tensor of a user's own model; model_steps: one step of it
settling              the cure for checks of a model that are left open
cluster               where the tasks run: here, or on a Dask cluster
"""

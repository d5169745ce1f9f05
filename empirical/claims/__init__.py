"""The statements of arXiv 2312.12226, each as an object that derives, measures and can fail.

what a claim is    claim (and its evidence) environment (sizes by tier, finished cells) registry
what most share    exponents (tables of exponents, measured) families (what is trained) figures
groups 1 to 8      parametrization scaled_damping push_through heuristics standard zero_output (with
regression, escape) invariance eigenvalues
groups 9 to 12     rate_transfer damping_transfer wider ablation (with convolution)
on paper           claim_report
"""

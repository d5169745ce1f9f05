"""Statements of papers, each as an object that derives, measures and can fail.

arXiv 2312.12226 throughout; group 13 is of arXiv 2402.17440, 14 of methods that tune.

what a claim is    claim (and its evidence) environment (sizes by tier, finished cells) registry
what most share    exponents (tables of exponents, measured) families (what is trained) figures
groups 1 to 8      parametrization scaled_damping push_through heuristics standard zero_output (with
regression, escape) invariance eigenvalues
groups 9 to 12     rate_transfer damping_transfer wider ablation (with convolution)
group 13           architecture_aware: what another paper says of depth, kernels and graphs
group 14           self_tuned: rates that tune themselves
on paper           claim_report
"""

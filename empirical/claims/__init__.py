"""The statements of arXiv 2312.12226, each as an object that derives, measures and can fail.

Read in this order: claim.py (what a claim and its evidence are), context.py (sizes by tier, where
finished cells are kept), exponents.py (the measurements that most claims share), then one file per
group, which registry.py finds.
"""

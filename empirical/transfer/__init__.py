"""Longer runs: do hyper-parameters that are tuned on a small network hold on a wide one?

sweep               a family of networks at widths x rates x seeds, every run kept
transfer_measures   how well the best rate transfers, from the losses
"""

"""From sizes at growing widths to a verdict.

exponent    a slope with an honest interval
verdict     agree, contradict, crossover or inconclusive
crossover   which sums trade places, and where
"""

"""Optimizers that are classes of someone's library: what they do, beside what a rule does.

two_steps    the first steps of an optimizer, and those of a rule in its place
"""

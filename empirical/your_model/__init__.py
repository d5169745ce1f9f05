"""A user's own model: what must neither grow nor vanish with the width, measured.

coordinate_check   the check over widths, with verdicts
model_trial        one step at one width: weights drawn, layers watched, sizes taken
"""

"""How an optimizer's hyper-parameters must change with width, derived from its update rule."""

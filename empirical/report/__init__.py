"""Measurements on paper.

measured_tables   text, Markdown, LaTeX, HTML, JSON, and files
graph_checks      what was measured on a model of the user's own
plots             sizes against width, with the predicted slope through them
"""

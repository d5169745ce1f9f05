"""What was measured, on paper.

measured_tables   text, Markdown, LaTeX, HTML, JSON, and files
plots             sizes against width, with the predicted slope through them
"""

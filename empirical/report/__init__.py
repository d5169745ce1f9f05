"""Measurements on paper.

measured_tables   text, Markdown, LaTeX, HTML, JSON, and files
batch_checks      powers of the batch, derived and measured
graph_checks      what was measured on a model of the user's own
model_checks      its coordinate check
transfer_report   whether the best rate stays: table, figure and files
tuning_report     what tuning small is worth at the target: table, figure and files
phase_figure      regimes over two exponents
plots             sizes against width, with the predicted slope through them
measured_notebook  what measurements and plans show of themselves
inline_plots      the same as SVG inside of a page
html_page         the page of `scaling report`, by the template page.html; page_sections: its parts
"""

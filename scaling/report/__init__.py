"""Results on paper.

tables    text, Markdown, LaTeX and HTML
as_json   JSON: the keys that programs rely on
graph_tables   what is derived for a model of the user's own
"""

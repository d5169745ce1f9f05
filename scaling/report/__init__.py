"""Results on paper.

a result         tables: heading, columns, rows, notes; graph_tables: of a model of the user's own;
                 phase_tables: regimes over two exponents; inverse_tables: exponents solved for;
                 batch_tables: powers of the batch
a derivation     step_lines: numbered lines that refer to each other, references in sentences
a network        drawn_graph: modules and operations as SVG, with sizes on edges
notebooks        notebook: what a result shows of itself; rule_latex: a rule as mathematics
the formats      as_text as_markdown as_latex as_html as_json
text             wrapping: no line wider than a hundred columns
"""

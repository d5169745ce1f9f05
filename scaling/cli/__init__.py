"""The ``scaling`` command: the one place where theory, catalogue and measurement meet.

main       the command and the verbs that derive
measuring  the verbs that measure; claiming: the paper's claims
listing    the verb that shows the catalogue
phasing    regimes over two exponents
planning   the numbers of a large model, from those of a small one
checking_model  the coordinate check of a model of the user's own
transferring  whether numbers that were tuned small are the best ones large
reporting  all of it on one page
probing    an optimizer of someone's library, as a black box
modelling  what the verbs do on a model of the user's own
options    every option, named and explained once
failures   what ends the command beside an answer, and its exit codes
requests   what a user asks: a rule by name or text, as a problem with its answer
"""

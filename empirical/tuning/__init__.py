"""Tuning at a small size: which strategies find numbers that still win at 16 times the width?

search_space        numbers between two bounds, and the budget
rate_schedules      how a learning rate moves within a run
tuning_run          one run as data, and its outcome
tuning_loop         one run, trained; second_derivatives: Hessian-vector products of a model
losses_by_task      the losses of the tasks of a batch, summed under weights
gradient_descent    the recipes that can be differentiated through their steps
tuning_strategy     what a strategy is, what it has in hand, and the list of all
tuning_store        finished runs in SQLite
tuning_workers      who makes the runs
measuring_tuning    tunes, plans, trains at the target; measured_tuning: the regret

One file a strategy, each with its source, formula and defaults at the top:

search              random_search, grid_search, tree_parzen, cross_entropy, recurring_halving,
                    pareto_trajectories (with hypervolume), optimization_law; optuna_studies
                    runs them, float_sampler: samplers of floats
hypergradients      zeroth_order (HOZOG), online_hypergradients (OHO), weighted_pretraining
on the fly          gradient_filter, distance_adaptation
"""

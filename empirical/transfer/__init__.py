"""Longer runs: do hyper-parameters that are tuned on a small network hold on a wide one?

sweep               a family of networks at widths x rates x seeds, every run kept
transfer_measures   how well the best rate transfers, from the losses

On a user's own model, under a plan and under the user's standard:

measuring_transfer  plans, runs and keeps; measured_transfer: the result
transfer_grid       the runs: ways x sizes x rates x seeds
transfer_run        one of them, trained; user_optimizer: by the user's own, at planned numbers
model_source        the place from which a worker gets the model; transfer_workers: joblib, Dask
run_store           finished runs in SQLite; transfer_store: those of a transfer
exported_runs       the same as CSV and Parquet
curve_loggers       loss curves for TensorBoard and Weights & Biases
"""

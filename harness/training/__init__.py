"""Training of trials that share a program, from their specs or their checkpoints to their trained models.

In come specs and data, out come rows of numbers per epoch and models. Optimizers, learning-rate schedules, the compiled step,
checkpoints and the plan of which trials train together live here. MLflow, Optuna and reports must not enter.
"""

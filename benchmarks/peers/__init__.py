"""This project against KerasTuner's tuners and a plain Optuna script, in the same time."""

"""The search that people write without this project: Optuna round `model.fit`, with MLflow.

    python -m benchmarks.plain_script --trials 8 --epochs 100

It searches the same numbers of the same iris model as `search_spaces/iris.toml`, logs the same metrics for
each epoch to nested runs, and keeps each trial's model. Its last line is JSON: seconds of each trial.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import mlflow
import optuna
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split


class LogToMlflow(keras.callbacks.Callback):
    """Logs an epoch's metrics to the active run."""

    def on_epoch_end(self, epoch, logs=None):
        """An epoch is over."""
        mlflow.log_metrics(logs, step=epoch)


def load():
    """60 / 20 / 20, as everybody splits."""
    inputs, targets = load_iris(return_X_y=True)
    rest, test = train_test_split(range(len(inputs)), test_size=0.2, stratify=targets, random_state=11)
    train, check = train_test_split(rest, test_size=0.25, stratify=targets[rest], random_state=11)
    return (inputs[train], targets[train]), (inputs[check], targets[check]), (inputs[test], targets[test])


def build(settings, inputs):
    """Dense 64-128-128-64-64-3 with every technique."""
    normalization = keras.layers.Normalization()
    normalization.adapt(inputs)
    model = keras.Sequential([keras.Input((4,)), normalization])
    for units in (64, 128, 128, 64, 64):
        model.add(
            keras.layers.Dense(
                units,
                activation="relu",
                kernel_regularizer=keras.regularizers.L1L2(settings["l1"], settings["l2"]),
                kernel_constraint=keras.constraints.MaxNorm(settings["max_norm"]),
            )
        )
        model.add(
            keras.layers.BatchNormalization(momentum=settings["bn_momentum"], epsilon=settings["bn_epsilon"])
        )
        model.add(keras.layers.Dropout(settings["dropout"]))
    model.add(keras.layers.Dense(3, activation="softmax"))
    model.compile(
        optimizer=keras.optimizers.Adam(settings["learning_rate"]),
        loss="sparse_categorical_crossentropy",
        metrics=[
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.SparseCategoricalCrossentropy(name="log_loss"),
        ],
    )
    return model


def suggest(trial):
    """The ranges of `search_spaces/iris.toml`."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 3e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [16, 40, 90]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "bn_momentum": trial.suggest_float("bn_momentum", 0.5, 0.99),
        "bn_epsilon": trial.suggest_float("bn_epsilon", 1e-5, 1e-1, log=True),
        "l1": trial.suggest_float("l1", 1e-7, 1e-3, log=True),
        "l2": trial.suggest_float("l2", 1e-7, 1e-2, log=True),
        "max_norm": trial.suggest_float("max_norm", 0.5, 6.0),
    }


def main():
    """Searches."""
    parser = argparse.ArgumentParser("python -m benchmarks.plain_script")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=100)
    given = parser.parse_args()
    train, check, test = load()
    seconds = []

    def objective(trial):
        began = time.perf_counter()
        settings = suggest(trial)
        with mlflow.start_run(nested=True, run_name=f"trial {trial.number}") as run:
            trial.set_user_attr("run", run.info.run_id)
            mlflow.log_params(settings)
            keras.utils.clear_session()
            model = build(settings, train[0])
            plateau = keras.callbacks.ReduceLROnPlateau(
                monitor="val_log_loss", factor=0.5, patience=15, min_lr=1e-6
            )
            history = model.fit(
                *train,
                batch_size=settings["batch_size"],
                epochs=given.epochs,
                validation_data=check,
                callbacks=[plateau, LogToMlflow()],
                verbose=0,
            )
            with TemporaryDirectory() as folder:
                file = Path(folder) / "model.keras"
                model.save(file)
                mlflow.log_artifact(file)
            best = min(history.history["val_log_loss"])
            mlflow.log_metric("best_val_log_loss", best)
        seconds.append(time.perf_counter() - began)
        return best

    mlflow.set_experiment("plain script")
    with mlflow.start_run(run_name="search"):
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        study.optimize(objective, n_trials=given.trials)
        best = study.best_trial.user_attrs["run"]
        file = mlflow.artifacts.download_artifacts(run_id=best, artifact_path="model.keras")
        model = keras.models.load_model(file)
        scores = model.evaluate(*test, verbose=0, return_dict=True)
        mlflow.log_metrics({f"test_{name}": value for name, value in scores.items()})
    print(json.dumps({"trial_seconds": seconds}))


if __name__ == "__main__":
    main()

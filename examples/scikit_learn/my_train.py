"""A linear classifier that scikit-learn trains epoch by epoch on its handwritten digits."""

import joblib
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

x, y = load_digits(return_X_y=True)
x_train, x_val, y_train, y_val = train_test_split(x / 16, y, test_size=0.3, random_state=0, stratify=y)


def main(config, trial):
    if (restored := trial.restored()) is None:
        model = SGDClassifier(
            loss="log_loss", alpha=config.alpha, eta0=config.eta0, learning_rate=config.schedule,
            random_state=trial.seed % 2**31,
        )  # fmt: skip
    else:
        model = joblib.load(restored / "model.joblib")
    for epoch in range(trial.epoch + 1, trial.epochs + 1):
        model.partial_fit(x_train, y_train, classes=range(10))
        with trial.checkpoint() as folder:
            joblib.dump(model, folder / "model.joblib")
        losses = {"loss": log_loss(y_train, model.predict_proba(x_train))}
        losses["val_loss"] = log_loss(y_val, model.predict_proba(x_val))
        if not trial.report(epoch, val_accuracy=model.score(x_val, y_val), **losses):
            break

"""A PyTorch training loop on scikit-learn's handwritten digits."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

x, y = load_digits(return_X_y=True)
x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
x_train, x_val, y_train, y_val = train_test_split(x, y, test_size=0.3, random_state=0)


def main(config, trial):
    torch.manual_seed(trial.seed)
    model = nn.Sequential(
        nn.Linear(64, config.units), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(config.units, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    if folder := trial.restored():
        state = torch.load(folder / "state.pt")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    for epoch in range(trial.epoch + 1, trial.epochs + 1):
        torch.manual_seed(trial.seed + epoch)  # so that a resumed trial gives the same numbers
        for rows in torch.randperm(len(x_train)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x_train[rows]), y_train[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            logits = model(x_val)
        model.train()
        with trial.checkpoint() as folder:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "state.pt")
        accuracy = (logits.argmax(1) == y_val).float().mean()
        if not trial.report(epoch, val_accuracy=accuracy, val_loss=nn.functional.cross_entropy(logits, y_val)):
            break

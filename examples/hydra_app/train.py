"""An application as its author wrote it: it knows nothing of sweeps, and returns the value that counts."""

import hydra
from omegaconf import DictConfig
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    x, y = load_digits(return_X_y=True)
    x_train, x_val, y_train, y_val = train_test_split(x / 16, y, test_size=0.3, random_state=cfg.seed)
    model = hydra.utils.instantiate(cfg.model, random_state=cfg.seed)
    accuracy = float(model.fit(x_train, y_train).score(x_val, y_val))
    print(f"accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()

"""The smallest run that exercises everything.

    python train.py --config=configs/tiny.py --workdir=runs/tiny

Two CPU cores: one to two minutes, data included. Expect a loss near 0.6 nats per scored cell after 60 steps, down
from 4 at the start; it makes no music worth hearing.
"""

from ml_collections import ConfigDict

from configs.default import get_config as default_config


def get_config() -> ConfigDict:
    """What differs from configs/default.py."""
    config = default_config()
    config.update({
        "card": "A test of the machinery: 0.3 M parameters, Conductor pairs of the demo dancer.",
        "data": "tiny",
        "width": 64,
        "depth": 2,
        "steps": 60,
        "batch": 16,
        "learning_rate": 3e-3,
        "warmup_steps": 10,
        "weight_decay": 0.01,
        "ema_decay": 0.99,
        "condition_dropout": 0.1,
        "condition_noise": 0.0,
        "condition_forget": 0.0,
        "log_every": 10,
        "validate_every": 60,
        "validate_size": 32,
        "checkpoint_every": 30,
        "sample_every": 0,
    })
    return config

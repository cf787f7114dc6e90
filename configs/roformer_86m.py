"""The large network: 12 layers x 768, 12 heads, 87.3 M parameters, all recorded music.

    EQDIFF_DATA=/path/to/data python train.py --config=configs/roformer_86m.py --workdir=runs/roformer_86m

For an accelerator; not run to the end yet, so there is no number to expect. Parameters, EMA and AdamW moments take
1.4 GB in float32, and the activations of a batch of 256 come on top.
"""

from ml_collections import ConfigDict

from configs.default import get_config as default_config


def get_config() -> ConfigDict:
    """What differs from configs/default.py."""
    config = default_config()
    config.update({
        "card": "87.3 M parameters. All recorded music of docs/data.md, the demo dancer, CMU salsa and Bandai Namco: "
                "some of it under licences that do not let weights be published.",
        "data": "experiment*7+demo_salsa",
        "width": 768,
        "depth": 12,
        "patch": 1,
        "dtype": "bfloat16",
        "remat": True,
        "steps": 100_000,
        "batch": 256,
        "learning_rate": 3e-4,
        "warmup_steps": 2500,
        "ema_decay": 0.9999,
        "log_every": 100,
        "validate_every": 1000,
        "validate_size": 512,
        "checkpoint_every": 1000,
        "sample_every": 5000,
    })
    return config

"""The tiny config, made tinier: a run of seconds."""

from configs.tiny import get_config


def tiny(data_dir, **changes):
    config = get_config()
    config.update({"data_dir": str(data_dir), "steps": 6, "batch": 8, "log_every": 2, "checkpoint_every": 2,
                   "validate_every": 6, "validate_size": 8, "warmup_steps": 2, "depth": 1, **changes})
    return config

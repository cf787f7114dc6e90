"""The smallest run that exercises everything.

    python train.py --config=configs/tiny.py --workdir=runs/tiny

Two CPU cores: one to two minutes, data included. Expect a loss near 0.6 nats per scored cell after 60 steps, down
from 4 at the start; it makes no music worth hearing.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Hyper-parameters of the run."""
    return ConfigDict({
        "card": "A test of the machinery: 0.3 M parameters, Conductor pairs of the demo dancer.",
        "seed": 0,
        # Data: tiny | demo | demo_salsa | shippable | experiment (all but two need EQDIFF_DATA), or a mixture such as
        # "shippable*3+demo"; data_dir "" means WORKDIR/data.
        "data": "tiny",
        "data_dir": "",
        # Network: width is a multiple of 64; patch 1 | 2 | 4 | 8 sixteenths per element; dtype float32 | bfloat16.
        "width": 64,
        "depth": 2,
        "patch": 4,
        "condition_tokens": 2,
        "rank": 16,
        "dtype": "float32",
        "remat": False,  # compute blocks again in the backward pass: less memory, a third more work
        # Optimisation. loss: score_entropy | masked_cross_entropy | lambda_cross_entropy | d3pm, one bound in four
        # forms; the batch is worked off in `accumulate` pieces.
        "loss": "score_entropy",
        "accumulate": 1,
        "steps": 60,
        "batch": 16,
        "learning_rate": 3e-3,
        "warmup_steps": 10,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "ema_decay": 0.99,
        "condition_dropout": 0.1,  # 1.0 trains without conditioning
        "condition_noise": 0.0,  # noise on the conditioning, most of it on z and velocity (training/blur.py)
        "condition_forget": 0.0,  # how often groups of its slots are zeroed
        # Perception: given (z as stored) | frozen (z from limbs, by the chain as it is) | joint (the chain learns, too,
        # with `smoothness` times the squared rate of z*). initial: a checkpoint to start from, or "".
        "perception": "given",
        "smoothness": 0.0,
        "initial": "",
        # Bookkeeping, in steps; validate_every and checkpoint_every are multiples of log_every.
        "log_every": 10,
        "validate_every": 60,
        "validate_size": 32,
        "checkpoint_every": 30,
        "sample_every": 0,  # pictures and MIDI of held-out movement; 0 for none
        "tensorboard": False,  # needs pip install tensorboardX
    })

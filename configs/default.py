"""The network that sample.py uses: 5.5 M parameters.

    EQDIFF_DATA=/path/to/data python train.py --config=configs/default.py --workdir=runs/default

Two CPU cores: a quarter of an hour for the pairs, then 1.2 s a step when nothing else runs (35 minutes for 1,700).
Expect a loss near 0.21 nats per scored cell at the end and 0.33 bits per cell on the validation part; the held-out
figure stands in the README.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Hyper-parameters of the run."""
    return ConfigDict({
        "card": "5.5 M parameters, trained on Conductor pairs (grids composed by the project's own rules) over the "
                "demo dancer and CMU salsa recordings (mocap.cs.cmu.edu, free to use). No recorded music was used.",
        "seed": 0,
        # Data: tiny | demo | demo_salsa | shippable | experiment (all but two need EQDIFF_DATA), or a mixture such as
        # "shippable*3+demo"; data_dir "" means WORKDIR/data.
        "data": "demo_salsa",
        "data_dir": "",
        # Network: width is a multiple of 64; patch 1 | 2 | 4 | 8 sixteenths per element; dtype float32 | bfloat16.
        "width": 256,
        "depth": 6,
        "patch": 4,
        "condition_tokens": 2,
        "rank": 16,
        "dtype": "float32",
        "remat": False,  # compute blocks again in the backward pass: less memory, a third more work
        # Optimisation. loss: score_entropy | masked_cross_entropy | lambda_cross_entropy | d3pm, one bound in four
        # forms; the batch is worked off in `accumulate` pieces.
        "loss": "score_entropy",
        "accumulate": 1,
        "steps": 1700,
        "batch": 32,
        "learning_rate": 1e-3,
        "warmup_steps": 100,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "ema_decay": 0.998,
        "condition_dropout": 0.1,  # 1.0 trains without conditioning
        "condition_noise": 0.0,  # noise on the conditioning, most of it on z and velocity (training/blur.py)
        "condition_forget": 0.0,  # how often groups of its slots are zeroed
        # Perception: given (z as stored) | frozen (z from limbs, by the chain as it is) | joint (the chain learns, too,
        # with `smoothness` times the squared rate of z*). initial: a checkpoint to start from, or "".
        "perception": "given",
        "smoothness": 0.0,
        "initial": "",
        # Bookkeeping, in steps; validate_every and checkpoint_every are multiples of log_every.
        "log_every": 20,
        "validate_every": 200,
        "validate_size": 128,
        "checkpoint_every": 100,
        "sample_every": 500,  # pictures and MIDI of held-out movement; 0 for none
        "tensorboard": False,  # needs pip install tensorboardX
    })

"""The large network: 12 layers x 768, 12 heads, 87.3 M parameters.

    EQDIFF_DATA=/path/to/data python train.py --config=configs/roformer_86m.py --workdir=runs/roformer_86m

For an accelerator; not run to the end yet, so there is no number to expect. Parameters, EMA and AdamW moments take
1.4 GB in float32, and the activations of a batch of 256 come on top.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Hyper-parameters of the run."""
    return ConfigDict({
        "card": "87.3 M parameters, Conductor pairs over the demo dancer and CMU salsa.",
        "seed": 0,
        # Data: tiny | demo | demo_salsa | shippable | experiment (all but two need EQDIFF_DATA), or a mixture such as
        # "shippable*3+demo"; data_dir "" means WORKDIR/data.
        "data": "demo_salsa",
        "data_dir": "",
        # Network: width is a multiple of 64; patch 1 | 2 | 4 | 8 sixteenths per element; dtype float32 | bfloat16.
        "width": 768,
        "depth": 12,
        "patch": 1,
        "condition_tokens": 2,
        "rank": 16,
        "dtype": "bfloat16",
        "remat": True,  # compute blocks again in the backward pass: less memory, a third more work
        # Optimisation. loss: score_entropy | masked_cross_entropy | lambda_cross_entropy | d3pm, one bound in four
        # forms; the batch is worked off in `accumulate` pieces.
        "loss": "score_entropy",
        "accumulate": 1,
        "steps": 100_000,
        "batch": 256,
        "learning_rate": 3e-4,
        "warmup_steps": 2500,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "ema_decay": 0.9999,
        "condition_dropout": 0.1,  # 1.0 trains without conditioning
        "condition_noise": 0.0,  # noise on the conditioning, most of it on z and velocity (training/blur.py)
        "condition_forget": 0.0,  # how often groups of its slots are zeroed
        # Perception: given (z as stored) | frozen (z from limbs, by the chain as it is) | joint (the chain learns, too,
        # with `smoothness` times the squared rate of z*). initial: a checkpoint to start from, or "".
        "perception": "given",
        "smoothness": 0.0,
        "initial": "",
        # Bookkeeping, in steps; validate_every and checkpoint_every are multiples of log_every.
        "log_every": 100,
        "validate_every": 1000,
        "validate_size": 512,
        "checkpoint_every": 1000,
        "sample_every": 5000,  # pictures and MIDI of held-out movement; 0 for none
        "tensorboard": False,  # needs pip install tensorboardX
    })

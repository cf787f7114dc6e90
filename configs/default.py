"""The network that sample.py uses: 5.5 M parameters, recorded music, and one row in eight of the Conductor's.

    EQDIFF_DATA=/path/to/data python train.py --config=configs/default.py --workdir=runs/default

Two CPU cores: half an hour for the data, then 0.55 s a step when nothing else runs (40 minutes). Expect a loss near
0.48 nats per observed cell at the end and 0.643 bits on the validation part of the mixture. Held-out figures:
checkpoints/default/MODEL_CARD.md.
"""

from ml_collections import ConfigDict

from eqdiff_jax.statistics import SAMPLING


def get_config() -> ConfigDict:
    """Hyper-parameters of the run."""
    return ConfigDict({
        "card": "5.5 M parameters. Music: freedoom (BSD-3-Clause), simutrans (Artistic License), the Magenta Groove "
                "MIDI Dataset (CC-BY-4.0), songs of LMMS under CC-BY, BSD or Artistic, and grids composed by the "
                "project's own rules. Movement: the demo dancer and CMU salsa (mocap.cs.cmu.edu, free to use). Paired "
                "by descriptors: nobody danced to this music.",
        "seed": 0,
        # Data: tiny | demo | demo_salsa | shippable | experiment | midi:FOLDER | logs:FOLDER (all but tiny, demo and
        # logs need EQDIFF_DATA), or a mixture such as "shippable*3+demo"; data_dir "" means WORKDIR/data.
        "data": "shippable*7+demo_salsa",
        "data_dir": "",
        # Network: width is a multiple of 64; patch 1 | 2 | 4 | 8 sixteenths per element; dtype float32 | bfloat16.
        "width": 256,
        "depth": 6,
        "patch": 4,
        "condition_tokens": 2,
        "rank": 16,
        "dtype": "float32",
        "remat": False,  # compute blocks again in the backward pass: less memory, a third more work
        # guidance, kappa, slack, cap: how the network is sampled unless somebody asks for something else.
        **SAMPLING,
        # Optimisation. loss: score_entropy | masked_cross_entropy | lambda_cross_entropy | d3pm, one bound in four
        # forms; the batch is worked off in `accumulate` pieces.
        "loss": "score_entropy",
        "accumulate": 1,
        "steps": 4000,
        "batch": 32,
        "learning_rate": 1e-3,
        "warmup_steps": 100,
        "weight_decay": 0.05,
        "clip_norm": 1.0,
        "ema_decay": 0.998,
        "condition_dropout": 0.15,  # 1.0 trains without conditioning
        "condition_noise": 0.4,  # noise on the conditioning, most of it on z and velocity (training/blur.py)
        "condition_forget": 0.2,  # how often groups of its slots are zeroed
        # Perception: given (z as stored) | frozen (z from limbs, by the chain as it is) | joint (the chain learns, too,
        # with `smoothness` times the squared rate of z*). initial: a checkpoint to start from, or "".
        "perception": "given",
        # Of every equilibrium of the run: picard | anderson | broyden | jaxopt_anderson | jaxopt_broyden.
        "solver": "picard",
        "smoothness": 0.0,
        "initial": "",
        # Bookkeeping, in steps; validate_every and checkpoint_every are multiples of log_every.
        "log_every": 20,
        "validate_every": 200,
        "validate_size": 256,
        "checkpoint_every": 100,
        "sample_every": 1000,  # pictures and MIDI of held-out movement; 0 for none
        "tensorboard": False,  # needs pip install tensorboardX
    })

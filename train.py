"""Train a denoiser: python train.py --config=configs/tiny.py --workdir=runs/tiny  (the same as eqdiff-train)"""

from eqdiff_jax.cli.train import run

if __name__ == "__main__":
    run("train.py")

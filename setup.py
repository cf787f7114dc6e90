"""Package metadata. Ranges, not pins: Python 3.11 with JAX 0.10 up to 3.12 with the newest JAX."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

SHIPPED = ("checkpoints/default", "configs", "web")  # what a wheel holds in eqdiff_jax/shipped; see eqdiff_jax/paths.py


class BuildPy(build_py):
    """Also the shipped weights, the configs and the page's own files; Strudel's come from npm."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for name in SHIPPED:
                target = Path(self.build_lib) / "eqdiff_jax" / "shipped" / name
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(name, target, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))


setup(
    name="eqdiff_jax",
    version="0.2.0.dev0",
    description="Movement to music: equilibrium solvers and discrete diffusion for twelve-track grids",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0 AND AGPL-3.0-or-later",  # the second: the page's own files (web/)
    license_files=["LICENSE", "web/LICENSE"],
    cmdclass={"build_py": BuildPy},
    package_data={"eqdiff_jax": ["py.typed"]},
    entry_points={"console_scripts": [
        "eqdiff-sample = eqdiff_jax.cli.sample:run",
        "eqdiff-live = eqdiff_jax.cli.live:run",
        "eqdiff-train = eqdiff_jax.cli.train:run",
        "eqdiff-evaluate = eqdiff_jax.cli.evaluate:run",
    ]},
    python_requires=">=3.11",
    packages=find_packages(include=["eqdiff_jax", "eqdiff_jax.*"]),
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11",
        "jaxopt>=0.8.5,<0.9",
        "chex>=0.1.90",
        "tensorflow-datasets>=4.9.9",
        "array_record>=0.8",
        "importlib_resources>=6",  # tensorflow-datasets imports it without declaring it
        "ml-collections>=1.0",
        "numpy>=2.0",
        "scipy>=1.13",
        "bvhio>=1.5.4,<2",
        "mido>=1.3,<2",
        "matplotlib>=3.8",
        "tqdm>=4.66",
        "websockets>=17",
    ],
    extras_require={
        "beam": ["apache-beam>=2.60"],  # builders of corpora beyond one machine
        "imu": ["imufusion>=1.3,<2"],
        "tensorboard": ["tensorboardX>=2.6"],
        "test": ["imufusion>=1.3,<2", "pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "ruff>=0.6", "mypy>=1.11",
                 "python-osc>=1.9", "playwright>=1.48", "jsonschema>=4"],  # independent clients, a browser's driver
        "bench": ["optimistix>=0.0.10", "torchdeq>=0.1", "torch>=2.2"],  # peers of benchmarks/solvers.py
        "cuda": ["jax[cuda12]>=0.10"],
    },
)

"""The sampler beside PyTorch, beside its bare network, and beside itself parallel in time.

    python benchmarks/samplers.py --only skipping       # or in_time, default, large, parallel, sedd; needs '.[bench]'

`sedd` wants --sedd DIR, a checkout of github.com/louaaron/Score-Entropy-Discrete-Diffusion, and pip install einops
omegaconf huggingface_hub.

The same Roformer (layers, widths, rotary angles, low-rank adaptive norms, float32), the same analytic steps, random
weights; candidates are interleaved round by round, and ratios are medians with quartiles. Absolute seconds are printed
only where the question is whether two bars are ready before they are over (4 s at 120 bpm).
"""

import argparse
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import torch
from run import config, interleave, ratio
from torch import nn
from torch.nn import functional

from eqdiff_jax.composer import PROCESS, compose, posterior, predictor
from eqdiff_jax.denoiser.embeddings import axial_rotary
from eqdiff_jax.diffusion import Analytic, Ancestral, Parallel, sample
from eqdiff_jax.music.grid import SHAPE
from eqdiff_jax.training import checkpoint
from eqdiff_jax.training.state import init_params

HEAD = 64


class AdaptiveNorm(nn.Module):
    """denoiser.roformer.AdaptiveNorm in PyTorch."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(768, rank, bias=False), nn.Linear(rank, 2 * width)
        self.width = width

    def forward(self, x, embedding):
        scale, shift = self.up(self.down(functional.silu(embedding)))[:, None].chunk(2, dim=-1)
        return functional.layer_norm(x, (self.width,)) * (1 + scale) + shift


class Block(nn.Module):
    """denoiser.roformer.Block in PyTorch, attention by scaled_dot_product_attention."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = AdaptiveNorm(width, rank), AdaptiveNorm(width, rank)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, embedding, cos, sin):
        batch, length, width = x.shape
        qkv = self.qkv(self.norm_attention(x, embedding)).view(batch, length, 3, width // HEAD, HEAD)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))

        def rotate(y):
            a, b = y.chunk(2, dim=-1)
            return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

        mixed = functional.scaled_dot_product_attention(rotate(q), rotate(k), v)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        hidden = functional.gelu(self.mlp_in(self.norm_mlp(x, embedding)), approximate="tanh")
        return x + self.mlp_out(hidden)


class TorchRoformer(nn.Module):
    """denoiser.roformer.Roformer in PyTorch: [B, 12, 32] -> [B, 12, 32, 81]."""

    def __init__(self, cfg) -> None:
        super().__init__()
        self.width, self.patch, self.extra = cfg.width, cfg.patch, cfg.condition_tokens
        self.columns = 32 // cfg.patch
        self.table = nn.Embedding(82, cfg.width // cfg.patch)
        self.place = nn.Parameter(0.02 * torch.randn(12 * self.columns, cfg.width))
        self.condition = nn.Linear(768, cfg.condition_tokens * cfg.width)
        self.blocks = nn.ModuleList(Block(cfg.width, cfg.rank) for _ in range(cfg.depth))
        self.norm_out = AdaptiveNorm(cfg.width, cfg.rank)
        self.logits = nn.Linear(cfg.width, cfg.patch * 81)
        cos, sin = (np.asarray(x) for x in axial_rotary(12, self.columns, HEAD))
        pad = ((self.extra, 0), (0, 0))
        self.register_buffer("cos", torch.tensor(np.pad(cos, pad, constant_values=1.0)))
        self.register_buffer("sin", torch.tensor(np.pad(sin, pad)))

    def forward(self, tokens, embedding):
        batch = len(tokens)
        cells = self.table(tokens).reshape(batch, 12 * self.columns, self.width) + self.place
        x = torch.cat([self.condition(embedding).view(batch, self.extra, self.width), cells], dim=1)
        for block in self.blocks:
            x = block(x, embedding, self.cos, self.sin)
        return self.logits(self.norm_out(x[:, self.extra:], embedding)).view(batch, 12, 32, 81)


@torch.inference_mode()
def torch_sample(net: TorchRoformer, batch: int, steps: int) -> torch.Tensor:
    """The analytic sampler of the absorbing process, loglinear, as a PyTorch user writes it."""
    tokens, embedding = torch.full((batch, 12, 32), 81), torch.zeros(batch, 768)
    for k in range(steps):
        alpha_t, alpha_s = 1 - 0.999 * (1 - k / steps), 1.0 if k + 1 == steps else 1 - 0.999 * (1 - (k + 1) / steps)
        mu = torch.softmax(net(tokens, embedding), dim=-1)
        stay = torch.full((*tokens.shape, 1), (1 - alpha_s) / (1 - alpha_t))
        law = torch.cat([mu * ((alpha_s - alpha_t) / (1 - alpha_t)), stay], dim=-1)
        drawn = torch.multinomial(law.view(-1, 82), 1).view(tokens.shape)
        tokens = torch.where(tokens == 81, drawn, tokens)
    return tokens


def peers(name: str, steps: int, rounds: int) -> list[str]:
    """Ours against PyTorch, and against T bare calls of its own network, batch 1 and 8, unguided."""
    cfg = config(name)
    cfg.dtype = "float32"
    params, net = init_params(jax.random.key(0), cfg), TorchRoformer(cfg).eval()
    rows = []
    for batch in (1, 8):
        c, given = jnp.zeros((batch, 104)), jnp.ones(batch, bool)
        draw = jax.jit(lambda p, k, c=c, given=given: sample(k, posterior(p, c, given), PROCESS, (len(c), *SHAPE),
                                                             steps=steps).tokens)
        bare = jax.jit(lambda p, x, c=c, given=given: posterior(p, c, given)(x, jnp.zeros(len(c))))
        empty = jnp.full((batch, *SHAPE), PROCESS.mask)
        seconds, _ = interleave({
            "ours": lambda draw=draw: draw(params, jax.random.key(1)),
            "torch": lambda batch=batch: torch_sample(net, batch, steps),
            "bare": lambda bare=bare, empty=empty: [jax.block_until_ready(bare(params, empty)) for _ in range(steps)],
        }, rounds)
        rows += [f"| {name}, batch {batch}, {steps} steps: PyTorch {torch.__version__} / ours | "
                 f"{ratio(seconds['torch'], seconds['ours'])} |",
                 f"| {name}, batch {batch}: ours / {steps} bare calls of the network | "
                 f"{ratio(seconds['ours'], seconds['bare'])} |"]
    return rows


def sedd(folder: str, steps: int, rounds: int) -> list[str]:
    """The reference sampling loop (analytic, then its denoising step) on its own 12 x 768 network, beside ours."""
    def attention(qkv, starts, length, dropout, causal):
        del starts, dropout, causal
        q, k, v = qkv.view(-1, length, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, *qkv.shape[2:])

    interface = types.ModuleType("flash_attn.flash_attn_interface")
    interface.flash_attn_varlen_qkvpacked_func = attention  # flash attention needs a GPU; this is PyTorch's own
    sys.modules |= {"flash_attn": types.ModuleType("flash_attn"), interface.__name__: interface}
    sys.path.insert(0, folder)
    import graph_lib
    import noise_lib
    import sampling
    from model import SEDD

    net = SEDD({"tokens": 81, "graph": {"type": "absorb"}, "model": {
        "hidden_size": 768, "cond_dim": 128, "n_heads": 12, "n_blocks": 12, "dropout": 0.0,
        "scale_by_sigma": True}}).eval()
    cfg = config("roformer_86m")
    cfg.dtype = "float32"
    params, rows = init_params(jax.random.key(0), cfg), []
    for batch in (1, 8):
        c, given = jnp.zeros((batch, 104)), jnp.ones(batch, bool)
        draw = jax.jit(lambda p, k, c=c, given=given: sample(k, posterior(p, c, given), PROCESS, (len(c), *SHAPE),
                                                             steps=steps).tokens)
        loop = sampling.get_pc_sampler(graph_lib.Absorbing(81), noise_lib.LogLinearNoise(), (batch, 384), "analytic",
                                       steps - 1, denoise=True, eps=1e-5)
        seconds, _ = interleave({"ours": lambda draw=draw: draw(params, jax.random.key(1)),
                                 "sedd": lambda loop=loop: loop(net)}, rounds)
        rows.append(f"| roformer_86m, batch {batch}, {steps} network calls: SEDD's loop and network / ours | "
                    f"{ratio(seconds['sedd'], seconds['ours'])} |")
    return rows


def in_time(rounds: int) -> list[str]:
    """Seconds for two bars, and how they compare with their own duration."""
    large = config("roformer_86m")
    large.dtype = "float32"
    default = checkpoint.load("checkpoints/default")
    rows = []
    for name, params, steps in (("roformer_86m", init_params(jax.random.key(0), large), 12), ("default", default, 50)):
        weights = {part: params[part] for part in ("encoder", "denoiser")}
        weights["statistics"] = default["statistics"]
        free = jax.jit(lambda p, k, n=steps: sample(k, posterior(p, jnp.zeros((1, 104)), jnp.ones(1, bool)), PROCESS,
                                                    (1, *SHAPE), steps=n).tokens)
        seconds, _ = interleave({
            "unguided": lambda free=free, weights=weights: free(weights, jax.random.key(0)),
            "guided": lambda weights=weights, steps=steps: compose(
                jax.random.key(0), weights, jnp.zeros(104), jnp.full(SHAPE, PROCESS.mask), steps=steps).tokens}, rounds)
        for way, values in seconds.items():
            low, mid, high = np.percentile(values, [25, 50, 75])
            rows.append(f"| {name}, {steps} steps, {way}: seconds for two bars | {mid:.2f} ({low:.2f} to {high:.2f}) |")
    return rows


def parallel(rounds: int, chains: int = 24) -> list[str]:
    """Sweeps of the parallel sampler with the shipped network, divergences, wall time against the sequential one."""
    params = checkpoint.load("checkpoints/default")
    c = 0.3 * jax.random.normal(jax.random.key(0), (1, 104))

    def draw(sampler):
        # Weights are an argument: as constants XLA would fold them for minutes.
        return jax.jit(lambda p, key, steps: sample(key, predictor(p, c, 1.0), PROCESS, (1, *SHAPE), sampler=sampler,
                                                    steps=steps))

    rows = []
    for steps in (8, 16, 50, 100):
        one, other = draw(Analytic()), draw(Parallel(Analytic(), steps))
        sweeps, differ, seconds = [], 0, {"one": [], "other": []}
        for i in range(chains):
            key = jax.random.fold_in(jax.random.key(7), i)
            found = {}
            for name, run in (("one", one), ("other", other)):
                start = time.perf_counter()
                found[name] = jax.block_until_ready(run(params, key, jnp.int32(steps)))
                if i >= chains - rounds:
                    seconds[name].append(time.perf_counter() - start)
            sweeps.append(int(found["other"].sweeps))
            if (found["one"].tokens != found["other"].tokens).any():
                differ += 1
                print(first_divergence(params, c, found["one"], found["other"], steps), file=sys.stderr, flush=True)
        low, mid, high = np.percentile(sweeps, [10, 50, 90])
        draws = chains * 384 * (steps + 1) / 2  # of masked cells
        rows.append(f"| {steps} | {mid:.0f} ({low:.0f} to {high:.0f}) | {mid + 1:.0f} | {differ} of {chains} | "
                    f"{draws:.0f} | {ratio(np.array(seconds['other']), np.array(seconds['one']))} |")
    return rows


def first_divergence(params, c, one, other, steps: int) -> str:
    """Where two chains part, and how far the network's answers to the same state differ there between batch shapes."""
    at = [np.asarray(found.changed_at[0]) for found in (one, other)]
    apart = (np.asarray(one.tokens) != np.asarray(other.tokens))[0] | (at[0] != at[1])
    step = int(np.minimum(*at)[apart].min())
    cell = tuple(np.argwhere(apart & (np.minimum(*at) == step))[0])
    state = np.where(at[0] < step, np.asarray(one.tokens[0]), PROCESS.mask)
    same = (state == np.where(at[1] < step, np.asarray(other.tokens[0]), PROCESS.mask)).all()
    alone = predictor(params, c, 1.0)(jnp.asarray(state)[None], jnp.zeros(1))
    batch = jax.vmap(lambda x: predictor(params, c, 1.0)(x[None], jnp.zeros(1)))(jnp.asarray([state] * steps))
    gap = np.abs(np.exp(np.asarray(alone)[0][cell]) - np.exp(np.asarray(batch)[0, 0][cell])).max()
    return (f"T = {steps}: first apart at step {step}, cell {cell}, states before it equal: {same}; the probabilities "
            f"there differ by {gap:.1e} between a batch of 1 and of {steps}")


def skipping(rounds: int) -> list[str]:
    """A bounded change of 8 and 64 cells at 50 steps: calls and time with and without skipping idle steps."""
    params = checkpoint.load("checkpoints/default")
    c = 0.3 * jax.random.normal(jax.random.key(0), (1, 104))
    rng, rows = np.random.default_rng(0), []
    for cells in (8, 64):
        hidden = np.zeros(384, np.int32)
        hidden[rng.choice(384, cells, replace=False)] = PROCESS.mask
        start = jnp.asarray(hidden.reshape(1, *SHAPE))
        runs = {name: jax.jit(lambda p, key, s=s, start=start: sample(key, predictor(p, c), PROCESS, start.shape,
                                                                      sampler=s, steps=50, initial=start))
                for name, s in (("skips", Ancestral()), ("all", Ancestral(skip=False)), ("analytic", Analytic()))}
        calls = {name: int(run(params, jax.random.key(0)).evaluations) for name, run in runs.items()}
        seconds, _ = interleave(
            {name: lambda run=run: run(params, jax.random.key(0)) for name, run in runs.items()}, rounds)
        rows.append(f"| {cells} cells, 50 steps: analytic ({calls['analytic']} calls) / ancestral with skips "
                    f"({calls['skips']} calls) | {ratio(seconds['analytic'], seconds['skips'])} |")
    return rows


PLAIN = "| what | value |\n|---|---|"
TABLES = {
    "skipping": (PLAIN, lambda args: skipping(2 * args.rounds)),
    "in_time": (PLAIN, lambda args: in_time(args.rounds)),
    "default": (PLAIN, lambda args: peers("default", args.steps, 2 * args.rounds)),
    "large": (PLAIN, lambda args: peers("roformer_86m", args.steps, args.rounds)),
    "sedd": (PLAIN, lambda args: sedd(args.sedd, args.steps, args.rounds)),
    "parallel": ("| T | sweeps, median (10 to 90 %) | calls of T rows | chains that differ | draws | "
                 "parallel / sequential |\n"
                 "|---|---|---|---|---|---|", lambda args: parallel(args.rounds)),
}


def main() -> None:
    """Print the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--sedd", help="checkout of the reference implementation, for the table sedd")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=[t for t in TABLES if t != "sedd"])
    args = parser.parse_args()
    if "sedd" in args.only and not args.sedd:
        parser.error("the table sedd needs --sedd DIR")
    for name in args.only:
        head, make = TABLES[name]
        print(f"\n{head}", flush=True)
        print("\n".join(make(args)), flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""The denoiser: a Roformer over the 12 x 32 cells, time-free, conditioned by a 768-wide embedding.

The embedding enters twice: as a few conditioning tokens before the cells, and as low-rank adaptive
norms (rank 16), which cost 1/10 of full ones. Time-free: the number of masks says how far along we are.
References: Su et al. (rotary embedding); Peebles and Xie (adaptive norms); Ou et al. (time-free absorbing).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from eqdiff_jax.denoiser.embeddings import axial_rotary, rotate
from eqdiff_jax.types import Array

HEAD_DIM = 64  # every size uses it, so a parameter tree alone tells the shape of its network
EMBEDDING = 768


class AdaptiveNorm(nn.Module):
    """y = LayerNorm(x) (1 + a(e)) + b(e), (a, b) = U V e with V of the given rank. x [B, L, D], e [B, 768]."""

    rank: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        low = nn.Dense(self.rank, use_bias=False, dtype=self.dtype, name="down")(nn.silu(embedding))
        both = nn.Dense(2 * x.shape[-1], dtype=self.dtype, kernel_init=nn.initializers.zeros, name="up")(low)
        scale, shift = jnp.split(both[:, None], 2, axis=-1)
        # Mean and variance in float32 whatever the compute type.
        plain = nn.LayerNorm(use_bias=False, use_scale=False, dtype=jnp.float32)(x).astype(self.dtype)
        return plain * (1.0 + scale) + shift


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). [B, L, D] -> [B, L, D]."""

    rank: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array, embedding: Array, cos: Array, sin: Array) -> Array:
        batch, length, width = x.shape
        heads = width // HEAD_DIM
        h = AdaptiveNorm(self.rank, self.dtype, name="norm_attention")(x, embedding)
        qkv = nn.Dense(3 * width, use_bias=False, dtype=self.dtype, name="qkv")(h)
        q, k, v = jnp.split(qkv.reshape(batch, length, 3 * heads, HEAD_DIM), 3, axis=2)
        q, k = rotate(q, cos, sin) * HEAD_DIM**-0.5, rotate(k, cos, sin)
        # Heads beside the batch: XLA's CPU products are twice as fast when what is multiplied lies together.
        q, k, v = (part.transpose(0, 2, 1, 3) for part in (q, k, v))
        logits = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits).astype(self.dtype)
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, v).transpose(0, 2, 1, 3).reshape(batch, length, width)
        x = x + nn.Dense(width, use_bias=False, dtype=self.dtype, name="out")(mixed)
        h = AdaptiveNorm(self.rank, self.dtype, name="norm_mlp")(x, embedding)
        h = nn.gelu(nn.Dense(4 * width, dtype=self.dtype, name="mlp_in")(h))
        return x + nn.Dense(width, dtype=self.dtype, name="mlp_out")(h)


class Roformer(nn.Module):
    """logits = f(tokens, embedding): [B, 12, 32] with masks = V, [B, 768] -> float32 [B, 12, 32, V].

    Fields: width D (a multiple of 64), depth, vocab V, patch, condition_tokens, rank, compute dtype. A sequence
    element is `patch` neighbouring sixteenths of one track: 1 is a cell, 4 a beat (a quarter of the work; every
    cell keeps its own logits). Where `given` [B] is False the learned null embedding takes the place of the
    conditioning (classifier-free guidance). remat: the backward pass computes each block again instead of keeping what
    it made, memory for a third more work.
    """

    width: int = 256
    depth: int = 6
    vocab: int = 81
    patch: int = 1
    condition_tokens: int = 2
    rank: int = 16
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, tokens: Array, embedding: Array, given: Array | None = None) -> Array:
        batch, tracks, steps = tokens.shape
        null = self.param("null", nn.initializers.normal(1.0), (EMBEDDING,))
        if given is not None:
            embedding = jnp.where(given[:, None], embedding, null)
        embedding = embedding.astype(self.dtype)
        normal = nn.initializers.normal(0.02)
        table = self.param("token", normal, (self.vocab + 1, self.width // self.patch))
        columns = steps // self.patch
        place = self.param("track", normal, (tracks, 1, self.width)) + self.param(
            "step", normal, (1, columns, self.width))
        cells = table[tokens].reshape(batch, tracks, columns, self.width) + place
        cells = cells.reshape(batch, tracks * columns, self.width).astype(self.dtype)
        prefix = nn.Dense(self.condition_tokens * self.width, dtype=self.dtype, name="condition")(embedding)
        x = jnp.concatenate([prefix.reshape(batch, self.condition_tokens, self.width), cells], axis=1)
        # Conditioning tokens stand at no place: angle 0.
        pad = ((self.condition_tokens, 0), (0, 0))
        cos, sin = axial_rotary(tracks, columns, HEAD_DIM)
        cos, sin = jnp.pad(cos, pad, constant_values=1.0), jnp.pad(sin, pad)
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.depth):
            x = block(self.rank, self.dtype, name=f"block_{i}")(x, embedding, cos, sin)
        x = AdaptiveNorm(self.rank, self.dtype, name="norm_out")(x[:, self.condition_tokens:], embedding)
        logits = nn.Dense(self.patch * self.vocab, dtype=self.dtype, kernel_init=nn.initializers.zeros,
                          name="logits")(x)
        return logits.astype(jnp.float32).reshape(batch, tracks, steps, self.vocab)


def multiply_adds(network: Roformer, tracks: int = 12, steps: int = 32) -> int:
    """Multiply-adds of the matrix products in one call on one grid, attention included.

    A call is twice as many floating-point operations, a training step six times as many: backward is two calls.
    """
    elements = tracks * steps // network.patch
    length, width = elements + network.condition_tokens, network.width
    return (network.depth * (12 * width**2 * length + 2 * width * length**2)
            + elements * width * network.patch * network.vocab)


def roformer_of(params) -> Roformer:
    """The network that a parameter tree belongs to, read off its shapes (computing in float32)."""
    symbols, per_cell = params["token"].shape
    width = params["track"].shape[-1]
    return Roformer(
        width=width,
        depth=sum(name.startswith("block_") for name in params),
        vocab=symbols - 1,
        patch=width // per_cell,
        condition_tokens=params["condition"]["kernel"].shape[1] // width,
        rank=params["norm_out"]["down"]["kernel"].shape[1],
        dtype=jnp.float32)

"""From a window of movement to the embedding that conditions the music."""

from eqdiff_jax.conditioning.encoder import Encoder
from eqdiff_jax.conditioning.layout import LAYOUT, SIZE, assemble, genre_vector

encoder = Encoder()  # a flax module: encoder.init(key, c), encoder.apply({"params": p}, c)

__all__ = ["LAYOUT", "SIZE", "Encoder", "assemble", "encoder", "genre_vector"]

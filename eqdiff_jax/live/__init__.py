"""Playing live: senders in, a grid every two bars, Strudel in a browser out."""

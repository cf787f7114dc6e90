"""Command lines: sample.py, live.py, train.py and their installed names. Thin; everything they do is elsewhere."""

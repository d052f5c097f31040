"""Networks that are there to reproduce the paper."""

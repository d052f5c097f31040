"""Inputs: which images there are, which ground truth they have, and what is wrong with it."""

"""Evaluation: masks of the labelling against the ground truth of a labelled set."""

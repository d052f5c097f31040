"""Inference: images to masks, whatever their size and the memory that there is."""

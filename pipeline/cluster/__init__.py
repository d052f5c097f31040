"""The cluster: the one seam to Ray."""

"""The network: fully convolutional networks, their weights, and one replica that runs them.

Importing the package does not import torch, so that planning and verifying run without it.
"""

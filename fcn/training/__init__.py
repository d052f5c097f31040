"""Training: a network from labelled images, by one worker or several."""

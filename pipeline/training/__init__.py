"""What `train` consists of: the plan, the run's folder, the images' way in, the workers' loop."""

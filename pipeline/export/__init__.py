"""What leads out of an output: choosing images, and other programs' forms of images and masks."""

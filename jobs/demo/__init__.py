"""The demo: drawn scenes, and a network trained on others of them."""

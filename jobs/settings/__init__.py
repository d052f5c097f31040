"""From file, environment and flags to a command's settings."""

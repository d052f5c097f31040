"""The settings of every command: names, units, limits, defaults and their reasons."""

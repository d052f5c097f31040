"""The job: its files are the steps of the flow, and what they have in common."""

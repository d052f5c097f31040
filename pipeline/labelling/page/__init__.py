"""A run's page: charts, pictures, and how it differs from the runs before it."""

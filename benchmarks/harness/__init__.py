"""What every row shares: the registry, the sample, the load and the report."""

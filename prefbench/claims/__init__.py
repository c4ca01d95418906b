"""Whether what papers say of preference tuning holds in what was measured."""

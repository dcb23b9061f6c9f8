"""REST: one file an endpoint."""

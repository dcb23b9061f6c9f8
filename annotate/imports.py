"""Imports: asked for, watched and read; the files themselves are read by `annotate.datasets`."""

"""Exports: asked for, watched and read; the files themselves are written by `annotate.datasets`."""

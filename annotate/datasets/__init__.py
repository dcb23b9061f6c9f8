"""Formats in and out: what is exported, how a dataset version is kept and checked, how prompts come in."""

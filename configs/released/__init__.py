"""Configs of released models."""

"""Sizes, parameters and multiply-adds of networks, by arithmetic alone."""

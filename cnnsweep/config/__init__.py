"""The config: its types, how it is composed with Hydra, and the components that it names."""

"""A trained network that is taken home, and used."""

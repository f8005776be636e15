"""The journal of a sweep: its events and the state that follows from them."""

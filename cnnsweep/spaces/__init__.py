"""What may vary, the arithmetic of the networks it makes, and which of them are valid and distinct."""

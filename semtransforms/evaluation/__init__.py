"""What a trainer can still learn from a protected copy."""

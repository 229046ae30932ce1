"""Training one candidate, and many at once."""

"""Validation: are simulated jets like real ones? Two-sample tests, transfer accuracy, bounds, a report."""

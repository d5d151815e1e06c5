"""Validation of simulated jets against real ones: two-sample tests, transfer accuracy, criteria, a report."""

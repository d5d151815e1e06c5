"""Runs that others trained: read from event files and tables, without ever running what they hold."""

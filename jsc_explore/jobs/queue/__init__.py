"""The queue: requests, live curve points and cancellations in a SQLite file."""

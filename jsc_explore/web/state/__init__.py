"""State: URL parameters, services shared by all sessions, cached queries."""

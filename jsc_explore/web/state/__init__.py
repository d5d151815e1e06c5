"""State of the app: URL parameters, services shared by all sessions, cached queries."""

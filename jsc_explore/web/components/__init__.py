"""Components: the panels, sidebars and dialogs that pages are made of."""

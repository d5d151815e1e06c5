"""Components: what a page is made of."""

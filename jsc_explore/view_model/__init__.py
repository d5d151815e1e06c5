"""View model: the state of a page from its URL, its slice, cells and curves. Used by the app and by the HTML export."""

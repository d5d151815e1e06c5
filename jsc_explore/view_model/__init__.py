"""What an address asks to see: its words, the slice, its cells and curves; read alike by the page and the handout."""

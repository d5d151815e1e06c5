"""Importers: read runs of other programs from TensorBoard event files and CSV tables, without executing anything."""

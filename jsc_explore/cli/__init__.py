"""The command line: one file per group of commands; each reads options, calls the package and prints."""

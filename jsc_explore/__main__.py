"""``python -m jsc_explore``: the command line without an installed script."""

from jsc_explore.cli.main import main

if __name__ == "__main__":
    main()

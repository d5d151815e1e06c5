"""The entry point of ``jsc-explore`` and of ``python -m jsc_explore``."""


def main() -> None:
    """Run the command line."""
    # Not at the top: each worker process imports the main module of its engine, and needs none of this.
    from jsc_explore.cli.main import main as run

    run()


if __name__ == "__main__":
    main()

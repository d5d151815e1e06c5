"""The command line, with workers that write a checkpoint five times a second; their own interval is five seconds."""

from jsc_explore.__main__ import main

if __name__ == "__main__":
    main()
else:  # A worker imports the main module of its engine before it starts.
    from jsc_explore.training import checkpoint

    checkpoint.CHECKPOINT_EVERY_S = 0.2

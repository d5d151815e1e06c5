"""Worker processes on this machine, each connected with the engine by a pipe that no other process can open."""

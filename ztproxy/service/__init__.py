"""The programs: supervisor, control process, workers, and the linear assembly of each."""

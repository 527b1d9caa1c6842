"""What we tell operators: metric names, structured log lines, health."""

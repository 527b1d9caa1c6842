"""Trust inputs: who asks, from which device, in what state, and how fresh each fact is."""

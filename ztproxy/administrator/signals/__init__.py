"""What is done about signals, and what we tell others: the policy administrator's part of Shared Signals."""

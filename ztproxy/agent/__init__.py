"""The device agent: enrols, reports posture, proves the device to its own browser."""

"""JSON for agents and programs: enrolment, posture, keys."""

"""When things happen: definitions, jobs, schedules, sensors and the command line."""

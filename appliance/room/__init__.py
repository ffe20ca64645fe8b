"""The room controller: one process that shows desks, takes a person's decisions and mints upload grants."""

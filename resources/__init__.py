"""What Quire touches: everything that is opened and closed."""

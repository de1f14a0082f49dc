"""What every command stands on: home, session, output, errors."""
